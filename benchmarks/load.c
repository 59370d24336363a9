/*
 * The load: a client that asks a KMS server on this machine as fast as it is answered, and looks at every answer.
 *
 * It replays the client's PDUs of one recorded exchange, each after the whole answer to the one before.  One thread
 * waits for all connections with epoll.  In which way connections are used is the mode:
 *
 *   fresh   each exchange has a TCP connection of its own, as with Windows clients;
 *   kept    connections stay open, and the last PDU, the call, is repeated on them;
 *   hold    connections are opened and left alone, bound or not, until standard input ends.
 *
 * Nothing is unbounded: no exchange is begun after so many answers or seconds, what is not answered PATIENCE seconds
 * later is given up, and a server that closes connections all the time is not asked for ever.  Only 127.0.0.0/8 is
 * ever connected to.
 *
 * An answer counts when it is a response PDU for our call, whole, in one fragment, with HRESULT 0, a layout whose
 * sizes agree, the version of the request, and the length of all answers before it.  Everything else is counted apart:
 * "wrong" answers, connections that are "broken" (refused, reset, closed too early), and those "unanswered".
 *
 * The result is one JSON object on standard output.  In fresh mode a latency begins with the connect, in kept mode
 * with the request.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_PDUS 8
#define MAX_PDU_LENGTH 1024
#define MAX_CONNECTIONS 100000L
#define MAX_ANSWERS 10000000L
#define MAX_BROKEN 1000L
#define MAX_OPENING 64 /* connections that "hold" opens at a time: a backlog is short */
#define PATIENCE 10.0

#define HEADER_LENGTH 16
#define CALL_PREFIX_LENGTH 24
#define WHOLE 0x03 /* PFC_FIRST_FRAG and PFC_LAST_FRAG */

enum { REQUEST = 0, RESPONSE = 2, BIND = 11, BIND_ACK = 12, ALTER_CONTEXT = 14, ALTER_CONTEXT_RESP = 15 };
enum mode { FRESH, KEPT, HOLD };

struct pdu {
    unsigned char bytes[MAX_PDU_LENGTH];
    size_t length;
};

/* sent: the number of the PDU whose answer is waited for; CONNECTING before the first, IDLE when there is none. */
enum { CONNECTING = -1, IDLE = -2 };
struct connection {
    int fd, sent;
    double begun;
    size_t received;
    unsigned char input[MAX_PDU_LENGTH];
};

static struct pdu pdus[MAX_PDUS];
static int pdu_count;

static enum mode mode;
static int port, sources = 1;
static bool orderly, binding;
static long connection_count = 1, answer_limit = MAX_ANSWERS;
static double seconds = 1.0;

static int poller;
static double ends;                       /* no exchange is begun after this time */
static long begun, opened, opening, live; /* exchanges; connections ever, being opened, and in use */
static long answers, wrong, broken, held, lost;
static double last_answer, longest_pause;
static size_t answer_length;
static float *latencies;
static char problem[160];

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void fail(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(2);
}

static unsigned read16(const unsigned char *at) { return at[0] | at[1] << 8; }
static uint32_t read32(const unsigned char *at) { return read16(at) | (uint32_t)read16(at + 2) << 16; }

/* Keep the first problem: it is the one that explains the others. */
__attribute__((format(printf, 1, 2))) static void note(const char *format, ...)
{
    if (problem[0])
        return;
    va_list values;
    va_start(values, format);
    vsnprintf(problem, sizeof problem, format, values);
    va_end(values);
}

/*
 * Judge the answer to the call.  A request stub of NDR says the size of its payload twice in 32 bits; one of NDR64
 * aligns the second to 8.  The answer has a pointer between its two sizes, and the HRESULT behind the payload, aligned
 * to 4.
 */
static const char *judge_response(const struct connection *c)
{
    const struct pdu *asked = &pdus[pdu_count - 1];
    const unsigned char *question = asked->bytes + CALL_PREFIX_LENGTH, *stub = c->input + CALL_PREFIX_LENGTH;
    bool ndr = read32(question) == read32(question + 4);
    size_t word = ndr ? 4 : 8, start = 3 * word, room = c->received - CALL_PREFIX_LENGTH;
    if (read32(c->input + 12) != read32(asked->bytes + 12))
        return "an answer to another call";
    if ((c->input[3] & WHOLE) != WHOLE)
        return "an answer in fragments";
    if (c->received < CALL_PREFIX_LENGTH + start + 8)
        return "an answer without a KMS response";
    uint32_t size = read32(stub);
    if (size > room || start + (size + 3) / 4 * 4 + 4 != room || read32(stub + 2 * word) != size || !read32(stub + word))
        return "an answer whose sizes do not agree";
    if (read32(c->input + c->received - 4) != 0)
        return "an answer with an HRESULT";
    if (memcmp(stub + start, question + 2 * word, 4) != 0)
        return "an answer in another version";
    if (answer_length && answer_length != c->received)
        return "an answer of another length than those before";
    answer_length = c->received;
    return NULL;
}

static const char *judge(const struct connection *c)
{
    int asked = pdus[c->sent].bytes[2], wanted = asked == BIND          ? BIND_ACK
                                                 : asked == ALTER_CONTEXT ? ALTER_CONTEXT_RESP
                                                                          : RESPONSE;
    if (c->input[2] != wanted)
        return "a PDU of another type than the answer's";
    if (read16(c->input + 8) != c->received)
        return "more bytes than the answer has";
    return wanted == RESPONSE ? judge_response(c) : NULL;
}

static void watch(struct connection *c, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(poller, operation, c->fd, &event) < 0)
        fail("epoll_ctl");
}

static bool may_begin(void)
{
    return mode == HOLD ? opened < connection_count
                        : begun < answer_limit && broken < MAX_BROKEN && now() < ends;
}

static void break_off(struct connection *c, const char *what, int error);

static void open_connection(struct connection *c)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)}, from = {.sin_family = AF_INET};
    struct linger reset = {1, 0};
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        fail("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (!orderly) /* otherwise each connection would keep its port for a minute */
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (sources > 1) { /* more ports than one address has, and more connections than a host takes from one */
        from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + opened % sources);
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
        if (bind(c->fd, (struct sockaddr *)&from, sizeof from) < 0)
            fail("bind");
    }
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->sent = CONNECTING;
    c->received = 0;
    c->begun = now();
    begun++, opened++, opening++, live++;
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS)
        break_off(c, "a connection failed", errno); /* which opens the next one, MAX_BROKEN times at most */
    else
        watch(c, EPOLL_CTL_ADD, EPOLLOUT);
}

static void close_connection(struct connection *c)
{
    if (c->sent == CONNECTING)
        opening--;
    close(c->fd);
    c->fd = -1;
    live--;
    if (mode != HOLD && may_begin())
        open_connection(c);
}

static void break_off(struct connection *c, const char *what, int error)
{
    note("%s%s%s, after %ld answers", what, error ? ": " : "", error ? strerror(error) : "", answers);
    broken++;
    lost += c->sent == IDLE;
    close_connection(c);
}

static void send_pdu(struct connection *c, int number)
{
    c->sent = number;
    c->received = 0;
    ssize_t written = send(c->fd, pdus[number].bytes, pdus[number].length, MSG_NOSIGNAL);
    if (written != (ssize_t)pdus[number].length)
        break_off(c, "a PDU could not be sent", written < 0 ? errno : 0);
}

static void rest(struct connection *c)
{
    c->sent = IDLE;
    held++;
}

static void on_connected(struct connection *c)
{
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error) {
        break_off(c, "a connection failed", error);
        return;
    }
    opening--;
    watch(c, EPOLL_CTL_MOD, EPOLLIN);
    if (mode == HOLD && !binding) {
        rest(c);
        return;
    }
    send_pdu(c, 0);
}

static void on_response(struct connection *c)
{
    double time = now();
    latencies[answers++] = time - c->begun;
    if (time - last_answer > longest_pause)
        longest_pause = time - last_answer;
    last_answer = time;
    if (mode == FRESH || !may_begin()) {
        close_connection(c);
        return;
    }
    begun++;
    c->begun = time;
    send_pdu(c, c->sent);
}

static void on_answer(struct connection *c)
{
    const char *complaint = judge(c);
    if (complaint) {
        note("%s (%zu bytes), after %ld answers", complaint, c->received, answers);
        wrong++;
        close_connection(c);
    } else if (mode == HOLD) {
        rest(c);
    } else if (c->sent == pdu_count - 1) {
        on_response(c);
    } else {
        if (mode == KEPT && c->sent + 1 == pdu_count - 1)
            c->begun = now();
        send_pdu(c, c->sent + 1);
    }
}

static void on_readable(struct connection *c)
{
    ssize_t length = recv(c->fd, c->input + c->received, sizeof c->input - c->received, 0);
    if (length < 0 && errno == EAGAIN)
        return;
    if (length <= 0) {
        break_off(c, "the server closed a connection", length < 0 ? errno : 0);
        return;
    }
    c->received += length;
    if (c->sent == IDLE || c->received == sizeof c->input) {
        note("bytes that nobody asked for");
        wrong++;
        close_connection(c);
        return;
    }
    if (c->received >= HEADER_LENGTH && c->received >= read16(c->input + 8))
        on_answer(c);
}

/* Handle what happens in the next fifth of a second at most; tell whether standard input has ended. */
static bool turn(void)
{
    struct epoll_event ready[256];
    bool ended = false;
    int count = epoll_wait(poller, ready, 256, 200);
    for (int i = 0; i < count; i++) {
        struct connection *c = ready[i].data.ptr;
        char ignored[64];
        if (!c)
            ended = read(STDIN_FILENO, ignored, sizeof ignored) <= 0;
        else if (c->sent == CONNECTING)
            on_connected(c);
        else
            on_readable(c);
    }
    return ended;
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double quantile(double share)
{
    return answers ? latencies[(long)((answers - 1) * share)] * 1e3 : 0.0;
}

static int ask(struct connection *all)
{
    double start = now();
    ends = start + seconds;
    last_answer = start;
    for (long i = 0; i < connection_count && may_begin(); i++)
        open_connection(&all[i]);
    while (live && now() < ends + PATIENCE)
        turn();
    double taken = last_answer - start;
    if (live)
        note("no answer within %.0f seconds, after %ld answers", PATIENCE, answers);
    qsort(latencies, answers, sizeof *latencies, by_value);
    printf("{\"answers\": %ld, \"wrong\": %ld, \"broken\": %ld, \"unanswered\": %ld, \"seconds\": %.6f, "
           "\"p50_ms\": %.4f, \"p99_ms\": %.4f, \"max_ms\": %.4f, \"longest_pause_ms\": %.4f, \"answer_length\": %zu, "
           "\"problem\": \"%s\"}\n",
           answers, wrong, broken, live, taken, quantile(0.5), quantile(0.99), quantile(1.0), longest_pause * 1e3,
           answer_length, problem);
    return answers && !wrong && !broken && !live ? 0 : 1;
}

static void report_held(void)
{
    printf("{\"held\": %ld, \"lost\": %ld, \"problem\": \"%s\"}\n", held - lost, lost, problem);
    fflush(stdout);
}

/* Say how many are held when all are open, and again at the end. */
static int hold(struct connection *all)
{
    ends = now() + seconds;
    bool told = false, over = false;
    while (!over && now() < ends) {
        while (opened < connection_count && opened - held - broken - wrong < MAX_OPENING)
            open_connection(&all[opened]);
        over = turn();
        if (!told && held + broken + wrong >= connection_count) {
            told = true;
            report_held();
            struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
            if (epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &event) < 0)
                fail("standard input cannot be waited for");
        }
    }
    report_held();
    return held == connection_count && !lost && !wrong ? 0 : 1;
}

/* One PDU on each line, in hexadecimal digits. */
static void read_exchange(const char *name)
{
    char line[2 * MAX_PDU_LENGTH + 2];
    FILE *file = fopen(name, "r");
    if (!file)
        fail(name);
    while (pdu_count < MAX_PDUS && fgets(line, sizeof line, file)) {
        struct pdu *pdu = &pdus[pdu_count++];
        unsigned byte;
        while (pdu->length < MAX_PDU_LENGTH && sscanf(line + 2 * pdu->length, "%2x", &byte) == 1)
            pdu->bytes[pdu->length++] = byte;
    }
    fclose(file);
    const struct pdu *call = &pdus[pdu_count - 1];
    if (!pdu_count || call->length < CALL_PREFIX_LENGTH + 24 || call->bytes[2] != REQUEST) {
        fprintf(stderr, "load: %s does not end with a call\n", name);
        exit(2);
    }
}

static long number(const char *text, long largest)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (*end || value < 1 || value > largest) {
        fprintf(stderr, "load: %s is not a number from 1 to %ld\n", text, largest);
        exit(2);
    }
    return value;
}

static void usage(void)
{
    fprintf(stderr, "usage: load --port PORT --mode fresh|kept|hold --exchange FILE [--connections N]\n"
                    "            [--answers N] [--seconds S] [--sources N] [--orderly] [--bind]\n");
    exit(2);
}

static void read_options(int argc, char **argv)
{
    static const struct option options[] = {
        {"port", required_argument, NULL, 'p'},        {"mode", required_argument, NULL, 'm'},
        {"exchange", required_argument, NULL, 'e'},    {"answers", required_argument, NULL, 'a'},
        {"connections", required_argument, NULL, 'c'}, {"seconds", required_argument, NULL, 's'},
        {"sources", required_argument, NULL, 'f'},     {"orderly", no_argument, NULL, 'o'},
        {"bind", no_argument, NULL, 'b'},              {NULL, 0, NULL, 0},
    };
    int option;
    bool known_mode = false;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'p': port = number(optarg, 65535); break;
        case 'e': read_exchange(optarg); break;
        case 'a': answer_limit = number(optarg, MAX_ANSWERS); break;
        case 'c': connection_count = number(optarg, MAX_CONNECTIONS); break;
        case 's': seconds = atof(optarg); break;
        case 'f': sources = number(optarg, 250); break;
        case 'o': orderly = true; break;
        case 'b': binding = true; break;
        case 'm':
            known_mode = true;
            if (!strcmp(optarg, "fresh")) mode = FRESH;
            else if (!strcmp(optarg, "kept")) mode = KEPT;
            else if (!strcmp(optarg, "hold")) mode = HOLD;
            else known_mode = false;
            break;
        default: usage();
        }
    }
    if (!port || !known_mode || !pdu_count || optind != argc || !(seconds > 0 && seconds <= 86400))
        usage();
}

static void allow_descriptors(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max != RLIM_INFINITY && limit.rlim_max < (rlim_t)connection_count + 16) {
        fprintf(stderr, "load: at most %ld files may be open here, too few for %ld connections\n",
                (long)limit.rlim_max, connection_count);
        exit(2);
    }
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    allow_descriptors();
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct connection *all = calloc(connection_count, sizeof *all);
    latencies = calloc(answer_limit + connection_count, sizeof *latencies);
    if (poller < 0 || !all || !latencies)
        fail("nothing can be begun");
    return mode == HOLD ? hold(all) : ask(all);
}

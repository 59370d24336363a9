/*
 * The short way through the envelopes of KMS: requests are opened and answers are made in C, as long as all is ordinary.
 *
 * An Envelope is one protocol version and its key.  What its methods return is what envelopes.py makes of the same
 * input, to the byte.  Whatever is not ordinary, a request that is wrong at any point above all, but also an ePID that
 * is not ASCII or a number without room in its field, they do not judge: they return None, and envelopes.py goes the
 * long way, which decides and finds the words.  So there is one place where anything is refused, and nothing is
 * accepted here that would be refused there.  Hashes are left to hashlib.
 *
 * Nothing here changes after the module was loaded, and an object never changes after it was made.  The limited API of
 * Python 3.11 is all that is used, so one binary serves that version and those behind it.
 *
 * Source: "KMS messages, versions 4, 5 and 6".
 */

#define Py_LIMITED_API 0x030b0000
#include "rijndael_keys.h"

#include <string.h>

enum {
    VERSION_LENGTH = 4,
    SALT_LENGTH = 16,
    GUID_LENGTH = 16,
    DIGEST_LENGTH = 32,
    HARDWARE_ID_LENGTH = 8,
    PADDING_LENGTH = 4,

    /* Where the fields of a request body stand. */
    MACHINE_OFFSET = 4,
    STATUS_OFFSET = 8,
    EXPIRATION_OFFSET = 12,
    APPLICATION_OFFSET = 16,
    SKU_OFFSET = 32,
    KMS_ID_OFFSET = 48,
    CLIENT_OFFSET = 64,
    POLICY_OFFSET = 80,
    TIME_OFFSET = 84,
    PREVIOUS_OFFSET = 92,
    NAME_OFFSET = 108,
    REQUEST_LENGTH = 236,

    NAME_UNITS = 64,
    MAXIMUM_STATUS = 6,
    MAXIMUM_POLICY = 1000,

    /* With the byte that ends a message under the MAC, and zeros up to a whole block. */
    REQUEST_BLOCKS = REQUEST_LENGTH / BLOCK_LENGTH + 1,
    PLAIN_LENGTH = REQUEST_LENGTH + BLOCK_LENGTH,
    ENCRYPTED_LENGTH = SALT_LENGTH + REQUEST_LENGTH + PADDING_LENGTH,

    REQUEST_FIELDS = 14,
    RESPONSE_FIELDS = 8,
    MAXIMUM_EPID = 63,
    /* More than any answer has before it is sealed. */
    MAXIMUM_MESSAGE = 512,
};

typedef struct {
    PyObject_HEAD
    uint8_t version;
    const Kernel *kernel;
    RoundKeys keys;
} Envelope;

/* What it takes to make a GUID: uuid.UUID, uuid.SafeUUID.unknown, the names of two attributes, and 64. */
typedef struct {
    PyObject *guid_class;
    PyObject *safety;
    PyObject *safety_name;
    PyObject *number_name;
    PyObject *half;
} State;


/* Making an envelope */

static PyObject *
envelope_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"version", "key", "alterations", "accelerated", NULL};
    int version, accelerated;
    Py_buffer key;
    PyObject *alterations;
    Envelope *self = NULL;

    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "iy*Op:Envelope", names, &version, &key, &alterations, &accelerated)) {
        return NULL;
    }
    const Kernel *kernel = accelerated ? find_accelerated_kernel() : &portable_kernel;
    if (version < 4 || version > 6) {
        PyErr_Format(PyExc_ValueError, "there is no protocol version %d", version);
        goto done;
    }
    if (kernel == NULL) {
        PyErr_SetString(PyExc_ValueError, "this processor has no AES instructions");
        goto done;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    self = (Envelope *)allocate(type, 0);
    if (self != NULL) {
        self->version = (uint8_t)version;
        self->kernel = kernel;
        if (prepare_keys(&self->keys, &key, alterations) < 0) {
            Py_CLEAR(self);
        }
    }
done:
    PyBuffer_Release(&key);
    return (PyObject *)self;
}

static void
envelope_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    /* Objects of types that are made at run time hold their type. */
    Py_DECREF(type);
}


/* Bytes and numbers; all but GUIDs as numbers are little-endian */

static inline uint32_t
load_uint32(const uint8_t *bytes)
{
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static inline uint64_t
load_uint64(const uint8_t *bytes)
{
    return load_uint32(bytes) | (uint64_t)load_uint32(bytes + 4) << 32;
}

/* Write the lowest bytes of a number, and return where they end. */
static inline uint8_t *
store_number(uint8_t *bytes, uint64_t number, int length)
{
    for (int place = 0; place < length; place++) {
        bytes[place] = (uint8_t)(number >> 8 * place);
    }
    return bytes + length;
}

static inline uint8_t *
store_bytes(uint8_t *bytes, const void *from, Py_ssize_t length)
{
    memcpy(bytes, from, (size_t)length);
    return bytes + length;
}

static inline uint8_t *
store_version(uint8_t *bytes, const Envelope *self)
{
    return store_number(store_number(bytes, 0, 2), self->version, 2);
}

static inline int
has_version(const Envelope *self, const uint8_t *bytes)
{
    return load_uint32(bytes) == (uint32_t)self->version << 16;
}

/* The first three parts of a GUID are numbers, and the wire has their bytes in the opposite order; so has this. */
static inline void
swap_guid(uint8_t *to, const uint8_t *from)
{
    static const uint8_t places[GUID_LENGTH] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
    for (int place = 0; place < GUID_LENGTH; place++) {
        to[place] = from[places[place]];
    }
}

/* The CBC-MAC over a message, 0x80, and zeros up to a whole block.  The buffer has room for those behind it. */
static void
compute_mac(const Envelope *self, uint8_t *message, Py_ssize_t length, uint8_t mac[BLOCK_LENGTH])
{
    size_t blocks = (size_t)length / BLOCK_LENGTH + 1;
    message[length] = 0x80;
    memset(message + length + 1, 0, blocks * BLOCK_LENGTH - (size_t)length - 1);
    self->kernel->encrypt_cbc(&self->keys, message, mac, blocks, 0);
}


/* Opening requests */

/* Make an object of uuid.UUID, as its own constructor does, which considers six ways to make one. */
static PyObject *
make_guid(const State *state, const uint8_t *wire)
{
    uint64_t high = (uint64_t)load_uint32(wire) << 32 | (uint64_t)(wire[4] | wire[5] << 8) << 16
        | (uint64_t)(wire[6] | wire[7] << 8);
    uint64_t low = 0;
    for (int place = 8; place < GUID_LENGTH; place++) {
        low = low << 8 | wire[place];
    }
    PyObject *high_object = PyLong_FromUnsignedLongLong(high);
    PyObject *low_object = PyLong_FromUnsignedLongLong(low);
    PyObject *shifted = NULL, *number = NULL, *guid = NULL;
    if (high_object == NULL || low_object == NULL) {
        goto done;
    }
    shifted = PyNumber_Lshift(high_object, state->half);
    if (shifted == NULL) {
        goto done;
    }
    number = PyNumber_Or(shifted, low_object);
    if (number == NULL) {
        goto done;
    }
    PyTypeObject *type = (PyTypeObject *)state->guid_class;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    guid = allocate(type, 0);
    /* Its class does not let anybody set attributes, so the way that all objects have is taken. */
    if (guid != NULL
        && (PyObject_GenericSetAttr(guid, state->number_name, number) < 0
            || PyObject_GenericSetAttr(guid, state->safety_name, state->safety) < 0)) {
        Py_CLEAR(guid);
    }
done:
    Py_XDECREF(high_object);
    Py_XDECREF(low_object);
    Py_XDECREF(shifted);
    Py_XDECREF(number);
    return guid;
}

/* Read a GUID by the function that Python gave. */
static PyObject *
ask_for_guid(PyObject *known_guid, const uint8_t *wire)
{
    PyObject *raw = PyBytes_FromStringAndSize((const char *)wire, GUID_LENGTH);
    if (raw == NULL) {
        return NULL;
    }
    PyObject *guid = PyObject_CallFunctionObjArgs(known_guid, raw, NULL);
    Py_DECREF(raw);
    return guid;
}

/* Put the next item into a tuple.  The reference is taken; NULL is an exception that is set already. */
static inline int
put(PyObject *tuple, Py_ssize_t *count, PyObject *item)
{
    return item == NULL ? -1 : PyTuple_SetItem(tuple, (*count)++, item);
}

static inline PyObject *
take_bytes(const uint8_t *bytes, Py_ssize_t length)
{
    return PyBytes_FromStringAndSize((const char *)bytes, length);
}

/* Make a tuple of the fields of a body that was opened, or None if anything about it is not ordinary. */
static PyObject *
take_body(const State *state, PyObject *known_guid, const uint8_t *body)
{
    uint32_t machine = load_uint32(body + MACHINE_OFFSET);
    uint32_t status = load_uint32(body + STATUS_OFFSET);
    uint32_t policy = load_uint32(body + POLICY_OFFSET);
    if (machine > 1 || status > MAXIMUM_STATUS || policy > MAXIMUM_POLICY) {
        Py_RETURN_NONE;
    }
    const uint8_t *name = body + NAME_OFFSET;
    char text[NAME_UNITS];
    int length = 0;
    for (;; length++) {
        if (length == NAME_UNITS || name[2 * length] > 0x7f || name[2 * length + 1] != 0) {
            /* It has no end, or is not ASCII. */
            Py_RETURN_NONE;
        }
        if (name[2 * length] == 0) {
            break;
        }
        text[length] = (char)name[2 * length];
    }
    const uint8_t *remains = name + 2 * length + 2;
    Py_ssize_t remains_length = 2 * NAME_UNITS - 2 * length - 2;
    while (remains_length > 0 && remains[remains_length - 1] == 0) {
        remains_length--;
    }

    PyObject *taken = PyTuple_New(REQUEST_FIELDS);
    Py_ssize_t count = 0;
    if (taken == NULL
        || put(taken, &count, PyLong_FromLong(body[0] | body[1] << 8)) < 0
        || put(taken, &count, PyLong_FromLong(body[2] | body[3] << 8)) < 0
        || put(taken, &count, PyLong_FromUnsignedLong(machine)) < 0
        || put(taken, &count, PyLong_FromUnsignedLong(status)) < 0
        || put(taken, &count, PyLong_FromUnsignedLong(load_uint32(body + EXPIRATION_OFFSET))) < 0
        || put(taken, &count, ask_for_guid(known_guid, body + APPLICATION_OFFSET)) < 0
        || put(taken, &count, ask_for_guid(known_guid, body + SKU_OFFSET)) < 0
        || put(taken, &count, ask_for_guid(known_guid, body + KMS_ID_OFFSET)) < 0
        || put(taken, &count, make_guid(state, body + CLIENT_OFFSET)) < 0
        || put(taken, &count, PyLong_FromUnsignedLong(policy)) < 0
        || put(taken, &count, PyLong_FromUnsignedLongLong(load_uint64(body + TIME_OFFSET))) < 0
        || put(taken, &count, ask_for_guid(known_guid, body + PREVIOUS_OFFSET)) < 0
        || put(taken, &count, PyUnicode_FromStringAndSize(text, length)) < 0
        || put(taken, &count, take_bytes(remains, remains_length)) < 0) {
        Py_CLEAR(taken);
    }
    return taken;
}

/* Whether a request of version 4 has the right MAC. */
static int
check_plain(const Envelope *self, const uint8_t *payload)
{
    uint8_t message[REQUEST_BLOCKS * BLOCK_LENGTH], mac[BLOCK_LENGTH];
    uint8_t difference = 0;
    memcpy(message, payload, REQUEST_LENGTH);
    compute_mac(self, message, REQUEST_LENGTH, mac);
    /* All bytes are compared, whichever differ: how long it takes tells nothing. */
    for (int place = 0; place < BLOCK_LENGTH; place++) {
        difference |= (uint8_t)(mac[place] ^ payload[REQUEST_LENGTH + place]);
    }
    return difference == 0;
}

/* Decrypt a request of another version: its salt, its body and what pads it.  Return whether it is one. */
static int
decrypt(const Envelope *self, const uint8_t *payload, uint8_t message[ENCRYPTED_LENGTH])
{
    const uint8_t *body = message + SALT_LENGTH;
    self->kernel->decrypt_cbc(
        &self->keys, payload + VERSION_LENGTH, message, ENCRYPTED_LENGTH / BLOCK_LENGTH);
    /* PKCS#7 padding: as many bytes of the value as there are of them. */
    return load_uint32(body + REQUEST_LENGTH) == 0x04040404 && has_version(self, body);
}

static PyObject *
open_payload(PyObject *object, const uint8_t *payload, Py_ssize_t length, PyObject *known_guid)
{
    const Envelope *self = (const Envelope *)object;
    int plain = self->version == 4;
    if (length != (plain ? PLAIN_LENGTH : VERSION_LENGTH + ENCRYPTED_LENGTH) || !has_version(self, payload)) {
        Py_RETURN_NONE;
    }
    uint8_t message[ENCRYPTED_LENGTH];
    if (!(plain ? check_plain(self, payload) : decrypt(self, payload, message))) {
        Py_RETURN_NONE;
    }
    const State *state = PyType_GetModuleState(Py_TYPE(object));
    if (state == NULL) {
        return NULL;
    }
    PyObject *fields = take_body(state, known_guid, plain ? payload : message + SALT_LENGTH);
    if (fields == NULL || fields == Py_None) {
        return fields;
    }
    PyObject *opened = PyTuple_New(3);
    Py_ssize_t count = 0, salt_length = plain ? 0 : SALT_LENGTH;
    if (opened == NULL) {
        Py_DECREF(fields);
        return NULL;
    }
    if (put(opened, &count, fields) < 0
        || put(opened, &count, take_bytes(message, salt_length)) < 0
        || put(opened, &count, take_bytes(payload + VERSION_LENGTH, salt_length)) < 0) {
        Py_CLEAR(opened);
    }
    return opened;
}

static PyObject *
envelope_open(PyObject *self, PyObject *const *arguments, Py_ssize_t given)
{
    if (given != 2) {
        return PyErr_Format(PyExc_TypeError, "a request is opened with 2 arguments, not %zd", given);
    }
    PyObject *payload = arguments[0];
    if (PyBytes_Check(payload)) {
        /* As good as always, and faster than the buffer protocol. */
        char *bytes;
        Py_ssize_t length;
        if (PyBytes_AsStringAndSize(payload, &bytes, &length) < 0) {
            return NULL;
        }
        return open_payload(self, (const uint8_t *)bytes, length, arguments[1]);
    }
    Py_buffer view;
    if (PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    PyObject *opened = open_payload(self, view.buf, view.len, arguments[1]);
    PyBuffer_Release(&view);
    return opened;
}


/* Making answers */

/* The functions that read what they are given return 1, 0 if it is not ordinary, and -1 with an exception set. */

static int
read_number(PyObject *object, uint64_t maximum, uint64_t *number)
{
    if (!PyLong_Check(object)) {
        return 0;
    }
    *number = PyLong_AsUnsignedLongLong(object);
    if (*number == (uint64_t)-1 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) {
            return -1;
        }
        PyErr_Clear();
        return 0;
    }
    return *number <= maximum;
}

static int
read_bytes(PyObject *object, Py_ssize_t length, const uint8_t **bytes)
{
    if (!PyBytes_Check(object) || PyBytes_Size(object) != length) {
        return 0;
    }
    *bytes = (const uint8_t *)PyBytes_AsString(object);
    return 1;
}

static int
read_epid(PyObject *object, const char **text, Py_ssize_t *length)
{
    if (!PyUnicode_Check(object)) {
        return 0;
    }
    *text = PyUnicode_AsUTF8AndSize(object, length);
    if (*text == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeError)) {
            return -1;
        }
        PyErr_Clear();
        return 0;
    }
    if (*length > MAXIMUM_EPID) {
        return 0;
    }
    for (Py_ssize_t place = 0; place < *length; place++) {
        uint8_t character = (uint8_t)(*text)[place];
        if (character == 0 || character > 0x7f) {
            return 0;
        }
    }
    return 1;
}

/* The fields of a response body behind the GUID: a FILETIME and three numbers. */
enum { NUMBERS = 4 };

static PyObject *
envelope_pack(PyObject *object, PyObject *const *arguments, Py_ssize_t given)
{
    const Envelope *self = (const Envelope *)object;
    static const Py_ssize_t counts[] = {2, 5, 7};
    static const Py_ssize_t lengths[] = {
        GUID_LENGTH, SALT_LENGTH, SALT_LENGTH, DIGEST_LENGTH, SALT_LENGTH, HARDWARE_ID_LENGTH};
    Py_ssize_t expected = counts[self->version - 4];
    if (given != expected) {
        return PyErr_Format(
            PyExc_TypeError, "a message of version %d is made of %zd things, not %zd", self->version, expected, given);
    }
    PyObject *body = arguments[0];
    if (!PyTuple_Check(body) || PyTuple_Size(body) != RESPONSE_FIELDS) {
        PyErr_SetString(PyExc_TypeError, "a response body is a tuple of 8");
        return NULL;
    }
    /* One that is not given is not used. */
    const uint8_t *parts[6] = {NULL};
    for (Py_ssize_t index = 1; index < given; index++) {
        if (!read_bytes(arguments[index], lengths[index - 1], &parts[index - 1])) {
            Py_RETURN_NONE;
        }
    }
    const uint8_t *guid = parts[0], *asked = parts[1], *random = parts[2], *digest = parts[3], *salt = parts[4],
                  *hardware_id = parts[5];
    const char *epid = NULL;
    Py_ssize_t length = 0;
    uint64_t minor = 0, major = 0, numbers[NUMBERS];
    int ordinary = read_number(PyTuple_GetItem(body, 0), 0, &minor);
    if (ordinary == 1) {
        ordinary = read_number(PyTuple_GetItem(body, 1), self->version, &major);
    }
    if (ordinary == 1) {
        ordinary = read_epid(PyTuple_GetItem(body, 2), &epid, &length);
    }
    for (int index = 0; ordinary == 1 && index < NUMBERS; index++) {
        uint64_t maximum = index == 0 ? UINT64_MAX : UINT32_MAX;
        ordinary = read_number(PyTuple_GetItem(body, 4 + index), maximum, &numbers[index]);
    }
    if (ordinary < 0) {
        return NULL;
    }
    if (!ordinary || major != self->version) {
        Py_RETURN_NONE;
    }

    uint8_t message[MAXIMUM_MESSAGE], *end = message;
    if (self->version == 5) {
        /* The same salt under the same key: the vector on the wire is that of the request. */
        end = store_bytes(end, asked, SALT_LENGTH);
    }
    if (self->version == 6) {
        end = store_bytes(end, salt, SALT_LENGTH);
    }
    end = store_version(end, self);
    end = store_number(end, 2 * (uint64_t)length + 2, 4);
    for (Py_ssize_t place = 0; place < length; place++) {
        end = store_number(end, (uint8_t)epid[place], 2);
    }
    end = store_number(end, 0, 2);
    swap_guid(end, guid);
    end = store_number(end + GUID_LENGTH, numbers[0], 8);
    for (int index = 1; index < NUMBERS; index++) {
        end = store_number(end, numbers[index], 4);
    }
    if (self->version > 4) {
        for (int place = 0; place < SALT_LENGTH; place++) {
            *end++ = random[place] ^ asked[place];
        }
        end = store_bytes(end, digest, DIGEST_LENGTH);
    }
    if (self->version == 6) {
        end = store_bytes(end, hardware_id, HARDWARE_ID_LENGTH);
        end = store_bytes(end, asked, SALT_LENGTH);
    }
    return take_bytes(message, end - message);
}

static PyObject *
seal_plain(const Envelope *self, uint8_t *message, Py_ssize_t length)
{
    PyObject *sealed = PyBytes_FromStringAndSize(NULL, length + BLOCK_LENGTH);
    if (sealed != NULL) {
        uint8_t *out = (uint8_t *)PyBytes_AsString(sealed);
        out = store_bytes(out, message, length);
        compute_mac(self, message, length, out);
    }
    return sealed;
}

static PyObject *
seal_encrypted(const Envelope *self, uint8_t *message, Py_ssize_t length)
{
    Py_ssize_t padding = BLOCK_LENGTH - length % BLOCK_LENGTH;
    PyObject *sealed = PyBytes_FromStringAndSize(NULL, VERSION_LENGTH + length + padding);
    if (sealed != NULL) {
        uint8_t *out = store_version((uint8_t *)PyBytes_AsString(sealed), self);
        memset(message + length, (int)padding, (size_t)padding);
        self->kernel->encrypt_cbc(
            &self->keys, message, out, (size_t)(length + padding) / BLOCK_LENGTH, BLOCK_LENGTH);
    }
    return sealed;
}

static PyObject *
envelope_seal(PyObject *object, PyObject *const *arguments, Py_ssize_t given)
{
    const Envelope *self = (const Envelope *)object;
    uint8_t message[MAXIMUM_MESSAGE + BLOCK_LENGTH], *end = message;
    if (given < 1 || given > 2) {
        return PyErr_Format(PyExc_TypeError, "a message has one or two parts, not %zd", given);
    }
    for (Py_ssize_t index = 0; index < given; index++) {
        char *part;
        Py_ssize_t length;
        if (PyBytes_AsStringAndSize(arguments[index], &part, &length) < 0) {
            return NULL;
        }
        if (length > MAXIMUM_MESSAGE - (end - message)) {
            return PyErr_Format(PyExc_ValueError, "a message has at most %d bytes", MAXIMUM_MESSAGE);
        }
        end = store_bytes(end, part, length);
    }
    return self->version == 4 ? seal_plain(self, message, end - message) : seal_encrypted(self, message, end - message);
}

/* CPython calls a function of more than one argument with another signature than its table names. */
#define CALLED_FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef envelope_methods[] = {
    {"open", CALLED_FAST(envelope_open), METH_FASTCALL,
     "Open a request: its fields, its salt and its vector; None if it is not ordinary."},
    {"pack", CALLED_FAST(envelope_pack), METH_FASTCALL,
     "Write an answer in clear, up to its HMAC; None if something is not ordinary."},
    {"seal", CALLED_FAST(envelope_seal), METH_FASTCALL, "Seal an answer that was written in clear."},
    {NULL, NULL, 0, NULL},
};


/* The class and the module */

static PyType_Slot envelope_slots[] = {
    {Py_tp_doc, "Opens requests and seals answers of one protocol version."},
    {Py_tp_new, envelope_new},
    {Py_tp_dealloc, envelope_dealloc},
    {Py_tp_methods, envelope_methods},
    {0, NULL},
};

static PyType_Spec envelope_spec = {
    .name = "kmsproto.kms._envelopes.Envelope",
    .basicsize = sizeof(Envelope),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = envelope_slots,
};

static int
find_guid_class(State *state)
{
    PyObject *module = PyImport_ImportModule("uuid");
    if (module == NULL) {
        return -1;
    }
    state->guid_class = PyObject_GetAttrString(module, "UUID");
    PyObject *safeties = PyObject_GetAttrString(module, "SafeUUID");
    Py_DECREF(module);
    if (safeties != NULL) {
        state->safety = PyObject_GetAttrString(safeties, "unknown");
        Py_DECREF(safeties);
    }
    if (state->guid_class == NULL || state->safety == NULL) {
        return -1;
    }
    if (!PyType_Check(state->guid_class)) {
        PyErr_SetString(PyExc_TypeError, "uuid.UUID is no class");
        return -1;
    }
    return 0;
}

static int
envelopes_exec(PyObject *module)
{
    State *state = PyModule_GetState(module);
    state->number_name = PyUnicode_InternFromString("int");
    state->safety_name = PyUnicode_InternFromString("is_safe");
    state->half = PyLong_FromLong(64);
    if (state->number_name == NULL || state->safety_name == NULL || state->half == NULL
        || find_guid_class(state) < 0) {
        return -1;
    }
    PyObject *type = PyType_FromModuleAndSpec(module, &envelope_spec, NULL);
    if (type == NULL) {
        return -1;
    }
    int status = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return status;
}

static int
envelopes_traverse(PyObject *module, visitproc visit, void *arg)
{
    State *state = PyModule_GetState(module);
    Py_VISIT(state->guid_class);
    Py_VISIT(state->safety);
    return 0;
}

static int
envelopes_clear(PyObject *module)
{
    State *state = PyModule_GetState(module);
    Py_CLEAR(state->guid_class);
    Py_CLEAR(state->safety);
    Py_CLEAR(state->safety_name);
    Py_CLEAR(state->number_name);
    Py_CLEAR(state->half);
    return 0;
}

static void
envelopes_free(void *module)
{
    envelopes_clear(module);
}

static PyModuleDef_Slot envelopes_slots[] = {
    {Py_mod_exec, envelopes_exec},
    {0, NULL},
};

static struct PyModuleDef envelopes_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "kmsproto.kms._envelopes",
    .m_doc = "The envelopes of KMS in C.",
    .m_size = sizeof(State),
    .m_slots = envelopes_slots,
    .m_traverse = envelopes_traverse,
    .m_clear = envelopes_clear,
    .m_free = envelopes_free,
};

PyMODINIT_FUNC
PyInit__envelopes(void)
{
    return PyModuleDef_Init(&envelopes_module);
}

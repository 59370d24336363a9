/*
 * Rijndael with 128-bit blocks and a key of 128 or 160 bits, in C that knows nothing of Python.
 *
 * There are two kernels, pairs of functions that chain blocks.  The portable one goes by FIPS-197 on four 32-bit
 * columns: a byte is substituted by a look-up, and a column is mixed by multiplying its four bytes at once.  The
 * accelerated one leaves a round to one AES instruction of the processor.  These instructions take a round key as it
 * comes and know neither the number of rounds nor how the keys were made, so the altered schedule of version 6 and the
 * eleven rounds of version 4 need nothing of their own.  Whether the processor has them is asked at run time.
 *
 * Decryption is the equivalent inverse cipher (FIPS-197 5.3.5), which the instructions want, for both.
 *
 * Source: FIPS-197.
 */

#include "rijndael_core.h"

#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define HAVE_AES_INSTRUCTIONS
#include <wmmintrin.h>
#endif


/* The parts of a round, on columns with row 0 in the highest byte */

/* SubBytes (FIPS-197 figure 7). */
static const uint8_t SBOX[256] = {
    0x63, 0x7c, 0x77, 0x7b, 0xf2, 0x6b, 0x6f, 0xc5, 0x30, 0x01, 0x67, 0x2b, 0xfe, 0xd7, 0xab, 0x76,
    0xca, 0x82, 0xc9, 0x7d, 0xfa, 0x59, 0x47, 0xf0, 0xad, 0xd4, 0xa2, 0xaf, 0x9c, 0xa4, 0x72, 0xc0,
    0xb7, 0xfd, 0x93, 0x26, 0x36, 0x3f, 0xf7, 0xcc, 0x34, 0xa5, 0xe5, 0xf1, 0x71, 0xd8, 0x31, 0x15,
    0x04, 0xc7, 0x23, 0xc3, 0x18, 0x96, 0x05, 0x9a, 0x07, 0x12, 0x80, 0xe2, 0xeb, 0x27, 0xb2, 0x75,
    0x09, 0x83, 0x2c, 0x1a, 0x1b, 0x6e, 0x5a, 0xa0, 0x52, 0x3b, 0xd6, 0xb3, 0x29, 0xe3, 0x2f, 0x84,
    0x53, 0xd1, 0x00, 0xed, 0x20, 0xfc, 0xb1, 0x5b, 0x6a, 0xcb, 0xbe, 0x39, 0x4a, 0x4c, 0x58, 0xcf,
    0xd0, 0xef, 0xaa, 0xfb, 0x43, 0x4d, 0x33, 0x85, 0x45, 0xf9, 0x02, 0x7f, 0x50, 0x3c, 0x9f, 0xa8,
    0x51, 0xa3, 0x40, 0x8f, 0x92, 0x9d, 0x38, 0xf5, 0xbc, 0xb6, 0xda, 0x21, 0x10, 0xff, 0xf3, 0xd2,
    0xcd, 0x0c, 0x13, 0xec, 0x5f, 0x97, 0x44, 0x17, 0xc4, 0xa7, 0x7e, 0x3d, 0x64, 0x5d, 0x19, 0x73,
    0x60, 0x81, 0x4f, 0xdc, 0x22, 0x2a, 0x90, 0x88, 0x46, 0xee, 0xb8, 0x14, 0xde, 0x5e, 0x0b, 0xdb,
    0xe0, 0x32, 0x3a, 0x0a, 0x49, 0x06, 0x24, 0x5c, 0xc2, 0xd3, 0xac, 0x62, 0x91, 0x95, 0xe4, 0x79,
    0xe7, 0xc8, 0x37, 0x6d, 0x8d, 0xd5, 0x4e, 0xa9, 0x6c, 0x56, 0xf4, 0xea, 0x65, 0x7a, 0xae, 0x08,
    0xba, 0x78, 0x25, 0x2e, 0x1c, 0xa6, 0xb4, 0xc6, 0xe8, 0xdd, 0x74, 0x1f, 0x4b, 0xbd, 0x8b, 0x8a,
    0x70, 0x3e, 0xb5, 0x66, 0x48, 0x03, 0xf6, 0x0e, 0x61, 0x35, 0x57, 0xb9, 0x86, 0xc1, 0x1d, 0x9e,
    0xe1, 0xf8, 0x98, 0x11, 0x69, 0xd9, 0x8e, 0x94, 0x9b, 0x1e, 0x87, 0xe9, 0xce, 0x55, 0x28, 0xdf,
    0x8c, 0xa1, 0x89, 0x0d, 0xbf, 0xe6, 0x42, 0x68, 0x41, 0x99, 0x2d, 0x0f, 0xb0, 0x54, 0xbb, 0x16,
};

/* InvSubBytes (FIPS-197 figure 14). */
static const uint8_t INVERSE_SBOX[256] = {
    0x52, 0x09, 0x6a, 0xd5, 0x30, 0x36, 0xa5, 0x38, 0xbf, 0x40, 0xa3, 0x9e, 0x81, 0xf3, 0xd7, 0xfb,
    0x7c, 0xe3, 0x39, 0x82, 0x9b, 0x2f, 0xff, 0x87, 0x34, 0x8e, 0x43, 0x44, 0xc4, 0xde, 0xe9, 0xcb,
    0x54, 0x7b, 0x94, 0x32, 0xa6, 0xc2, 0x23, 0x3d, 0xee, 0x4c, 0x95, 0x0b, 0x42, 0xfa, 0xc3, 0x4e,
    0x08, 0x2e, 0xa1, 0x66, 0x28, 0xd9, 0x24, 0xb2, 0x76, 0x5b, 0xa2, 0x49, 0x6d, 0x8b, 0xd1, 0x25,
    0x72, 0xf8, 0xf6, 0x64, 0x86, 0x68, 0x98, 0x16, 0xd4, 0xa4, 0x5c, 0xcc, 0x5d, 0x65, 0xb6, 0x92,
    0x6c, 0x70, 0x48, 0x50, 0xfd, 0xed, 0xb9, 0xda, 0x5e, 0x15, 0x46, 0x57, 0xa7, 0x8d, 0x9d, 0x84,
    0x90, 0xd8, 0xab, 0x00, 0x8c, 0xbc, 0xd3, 0x0a, 0xf7, 0xe4, 0x58, 0x05, 0xb8, 0xb3, 0x45, 0x06,
    0xd0, 0x2c, 0x1e, 0x8f, 0xca, 0x3f, 0x0f, 0x02, 0xc1, 0xaf, 0xbd, 0x03, 0x01, 0x13, 0x8a, 0x6b,
    0x3a, 0x91, 0x11, 0x41, 0x4f, 0x67, 0xdc, 0xea, 0x97, 0xf2, 0xcf, 0xce, 0xf0, 0xb4, 0xe6, 0x73,
    0x96, 0xac, 0x74, 0x22, 0xe7, 0xad, 0x35, 0x85, 0xe2, 0xf9, 0x37, 0xe8, 0x1c, 0x75, 0xdf, 0x6e,
    0x47, 0xf1, 0x1a, 0x71, 0x1d, 0x29, 0xc5, 0x89, 0x6f, 0xb7, 0x62, 0x0e, 0xaa, 0x18, 0xbe, 0x1b,
    0xfc, 0x56, 0x3e, 0x4b, 0xc6, 0xd2, 0x79, 0x20, 0x9a, 0xdb, 0xc0, 0xfe, 0x78, 0xcd, 0x5a, 0xf4,
    0x1f, 0xdd, 0xa8, 0x33, 0x88, 0x07, 0xc7, 0x31, 0xb1, 0x12, 0x10, 0x59, 0x27, 0x80, 0xec, 0x5f,
    0x60, 0x51, 0x7f, 0xa9, 0x19, 0xb5, 0x4a, 0x0d, 0x2d, 0xe5, 0x7a, 0x9f, 0x93, 0xc9, 0x9c, 0xef,
    0xa0, 0xe0, 0x3b, 0x4d, 0xae, 0x2a, 0xf5, 0xb0, 0xc8, 0xeb, 0xbb, 0x3c, 0x83, 0x53, 0x99, 0x61,
    0x17, 0x2b, 0x04, 0x7e, 0xba, 0x77, 0xd6, 0x26, 0xe1, 0x69, 0x14, 0x63, 0x55, 0x21, 0x0c, 0x7d,
};

static inline uint32_t
load_column(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static inline void
store_column(uint8_t *bytes, uint32_t column)
{
    bytes[0] = (uint8_t)(column >> 24);
    bytes[1] = (uint8_t)(column >> 16);
    bytes[2] = (uint8_t)(column >> 8);
    bytes[3] = (uint8_t)column;
}

static inline uint32_t
rotate_left(uint32_t column, int count)
{
    return column << count | column >> (32 - count);
}

/* Multiply each of four bytes by x (FIPS-197 4.2.1). */
static inline uint32_t
times_x(uint32_t bytes)
{
    return (bytes & 0x7f7f7f7f) << 1 ^ (bytes >> 7 & 0x01010101) * 0x1b;
}

/* MixColumns on one column (FIPS-197 5.1.3): each row becomes 2 of itself, 3 of the next, and the two others. */
static inline uint32_t
mix_column(uint32_t column)
{
    uint32_t next = rotate_left(column, 8);
    return times_x(column ^ next) ^ next ^ rotate_left(column, 16) ^ rotate_left(column, 24);
}

/* InvMixColumns (FIPS-197 5.3.3).  Its polynomial is that of MixColumns times 4 x^2 + 5. */
static inline uint32_t
inverse_mix_column(uint32_t column)
{
    return mix_column(column ^ times_x(times_x(column ^ rotate_left(column, 16))));
}

/* SubBytes on a column whose rows come from four columns (ShiftRows). */
static inline uint32_t
substitute(const uint8_t sbox[256], uint32_t row0, uint32_t row1, uint32_t row2, uint32_t row3)
{
    return (uint32_t)sbox[row0 >> 24] << 24 | (uint32_t)sbox[row1 >> 16 & 255] << 16
        | (uint32_t)sbox[row2 >> 8 & 255] << 8 | sbox[row3 & 255];
}


/* The portable kernel */

typedef struct {
    uint32_t a, b, c, d;
} State;

static inline State
load_state(const uint8_t bytes[BLOCK_LENGTH])
{
    return (State){load_column(bytes), load_column(bytes + 4), load_column(bytes + 8), load_column(bytes + 12)};
}

static inline void
store_state(uint8_t bytes[BLOCK_LENGTH], State state)
{
    store_column(bytes, state.a);
    store_column(bytes + 4, state.b);
    store_column(bytes + 8, state.c);
    store_column(bytes + 12, state.d);
}

static inline State
add(State one, State other)
{
    return (State){one.a ^ other.a, one.b ^ other.b, one.c ^ other.c, one.d ^ other.d};
}

/* SubBytes and ShiftRows: each row comes from one column further than the row above it. */
static inline State
substitute_and_shift(State s)
{
    return (State){
        substitute(SBOX, s.a, s.b, s.c, s.d),
        substitute(SBOX, s.b, s.c, s.d, s.a),
        substitute(SBOX, s.c, s.d, s.a, s.b),
        substitute(SBOX, s.d, s.a, s.b, s.c),
    };
}

/* InvSubBytes and InvShiftRows: the same, the other way. */
static inline State
inverse_substitute_and_shift(State s)
{
    return (State){
        substitute(INVERSE_SBOX, s.a, s.d, s.c, s.b),
        substitute(INVERSE_SBOX, s.b, s.a, s.d, s.c),
        substitute(INVERSE_SBOX, s.c, s.b, s.a, s.d),
        substitute(INVERSE_SBOX, s.d, s.c, s.b, s.a),
    };
}

static inline State
mix(State s)
{
    return (State){mix_column(s.a), mix_column(s.b), mix_column(s.c), mix_column(s.d)};
}

static inline State
inverse_mix(State s)
{
    return (State){
        inverse_mix_column(s.a), inverse_mix_column(s.b), inverse_mix_column(s.c), inverse_mix_column(s.d)};
}

static void
portable_encrypt_cbc(const RoundKeys *keys, const uint8_t *in, uint8_t *out, size_t blocks, size_t stride)
{
    State state = {0, 0, 0, 0};
    for (; blocks > 0; blocks--, in += BLOCK_LENGTH, out += stride) {
        state = add(add(state, load_state(in)), load_state(keys->encryption[0]));
        for (int round = 1; round < keys->rounds; round++) {
            state = add(mix(substitute_and_shift(state)), load_state(keys->encryption[round]));
        }
        state = add(substitute_and_shift(state), load_state(keys->encryption[keys->rounds]));
        store_state(out, state);
    }
}

static void
portable_decrypt_cbc(const RoundKeys *keys, const uint8_t *in, uint8_t *out, size_t blocks)
{
    State previous = {0, 0, 0, 0};
    for (; blocks > 0; blocks--, in += BLOCK_LENGTH, out += BLOCK_LENGTH) {
        State block = load_state(in);
        State state = add(block, load_state(keys->decryption[0]));
        for (int round = 1; round < keys->rounds; round++) {
            state = add(inverse_mix(inverse_substitute_and_shift(state)), load_state(keys->decryption[round]));
        }
        state = add(inverse_substitute_and_shift(state), load_state(keys->decryption[keys->rounds]));
        store_state(out, add(state, previous));
        previous = block;
    }
}

const Kernel portable_kernel = {portable_encrypt_cbc, portable_decrypt_cbc};


/* The kernel of AES instructions */

#ifdef HAVE_AES_INSTRUCTIONS

#define WITH_AES_INSTRUCTIONS __attribute__((target("aes,sse2")))

/* Neither an object of Python's nor bytes begin where aligned access would want them. */
static inline __m128i
load_block(const uint8_t *bytes)
{
    return _mm_loadu_si128((const __m128i *)bytes);
}

static inline void
store_block(uint8_t *bytes, __m128i block)
{
    _mm_storeu_si128((__m128i *)bytes, block);
}

WITH_AES_INSTRUCTIONS static void
accelerated_encrypt_cbc(const RoundKeys *keys, const uint8_t *in, uint8_t *out, size_t blocks, size_t stride)
{
    __m128i first = load_block(keys->encryption[0]);
    __m128i last = load_block(keys->encryption[keys->rounds]);
    __m128i state = _mm_setzero_si128();
    for (; blocks > 0; blocks--, in += BLOCK_LENGTH, out += stride) {
        /* What can be computed before the block before is ready, is: that is what the next round waits for. */
        state = _mm_xor_si128(state, _mm_xor_si128(load_block(in), first));
        for (int round = 1; round < keys->rounds; round++) {
            state = _mm_aesenc_si128(state, load_block(keys->encryption[round]));
        }
        state = _mm_aesenclast_si128(state, last);
        store_block(out, state);
    }
}

WITH_AES_INSTRUCTIONS static void
accelerated_decrypt_cbc(const RoundKeys *keys, const uint8_t *in, uint8_t *out, size_t blocks)
{
    __m128i first = load_block(keys->decryption[0]);
    __m128i last = load_block(keys->decryption[keys->rounds]);
    __m128i previous = _mm_setzero_si128();
    /* No block waits for another here, so four are on their way at once. */
    for (; blocks >= 4; blocks -= 4, in += 4 * BLOCK_LENGTH, out += 4 * BLOCK_LENGTH) {
        __m128i in0 = load_block(in);
        __m128i in1 = load_block(in + BLOCK_LENGTH);
        __m128i in2 = load_block(in + 2 * BLOCK_LENGTH);
        __m128i in3 = load_block(in + 3 * BLOCK_LENGTH);
        __m128i state0 = _mm_xor_si128(in0, first);
        __m128i state1 = _mm_xor_si128(in1, first);
        __m128i state2 = _mm_xor_si128(in2, first);
        __m128i state3 = _mm_xor_si128(in3, first);
        for (int round = 1; round < keys->rounds; round++) {
            __m128i key = load_block(keys->decryption[round]);
            state0 = _mm_aesdec_si128(state0, key);
            state1 = _mm_aesdec_si128(state1, key);
            state2 = _mm_aesdec_si128(state2, key);
            state3 = _mm_aesdec_si128(state3, key);
        }
        /* The last round ends with adding its key; the block before may be added to the key instead of the result. */
        store_block(out, _mm_aesdeclast_si128(state0, _mm_xor_si128(last, previous)));
        store_block(out + BLOCK_LENGTH, _mm_aesdeclast_si128(state1, _mm_xor_si128(last, in0)));
        store_block(out + 2 * BLOCK_LENGTH, _mm_aesdeclast_si128(state2, _mm_xor_si128(last, in1)));
        store_block(out + 3 * BLOCK_LENGTH, _mm_aesdeclast_si128(state3, _mm_xor_si128(last, in2)));
        previous = in3;
    }
    for (; blocks > 0; blocks--, in += BLOCK_LENGTH, out += BLOCK_LENGTH) {
        __m128i block = load_block(in);
        __m128i state = _mm_xor_si128(block, first);
        for (int round = 1; round < keys->rounds; round++) {
            state = _mm_aesdec_si128(state, load_block(keys->decryption[round]));
        }
        store_block(out, _mm_aesdeclast_si128(state, _mm_xor_si128(last, previous)));
        previous = block;
    }
}

static const Kernel accelerated_kernel = {accelerated_encrypt_cbc, accelerated_decrypt_cbc};

const Kernel *
find_accelerated_kernel(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("aes") ? &accelerated_kernel : NULL;
}

#else

const Kernel *
find_accelerated_kernel(void)
{
    return NULL;
}

#endif


/* The key schedule */

/* FIPS-197 5.2; for Nk below 7 there is no second SubWord. */
int
expand_key(RoundKeys *keys, const uint8_t *key, int length)
{
    int words = length / 4;
    uint8_t *schedule = keys->encryption[0];
    uint32_t round_constant = 1;

    keys->rounds = words + 6;
    memcpy(schedule, key, (size_t)length);
    for (int index = words; index < 4 * (keys->rounds + 1); index++) {
        uint32_t word = load_column(schedule + 4 * (index - 1));
        if (index % words == 0) {
            uint8_t rotated[4];
            store_column(rotated, rotate_left(word, 8));
            for (int place = 0; place < 4; place++) {
                rotated[place] = SBOX[rotated[place]];
            }
            word = load_column(rotated) ^ round_constant << 24;
            round_constant = times_x(round_constant);
        }
        store_column(schedule + 4 * index, load_column(schedule + 4 * (index - words)) ^ word);
    }
    return BLOCK_LENGTH * (keys->rounds + 1);
}

/* FIPS-197 5.3.5: the inner round keys pass through InvMixColumns. */
void
invert_key(RoundKeys *keys)
{
    for (int round = 0; round <= keys->rounds; round++) {
        const uint8_t *from = keys->encryption[keys->rounds - round];
        uint8_t *to = keys->decryption[round];
        if (round == 0 || round == keys->rounds) {
            memcpy(to, from, BLOCK_LENGTH);
            continue;
        }
        for (int column = 0; column < 4; column++) {
            store_column(to + 4 * column, inverse_mix_column(load_column(from + 4 * column)));
        }
    }
}

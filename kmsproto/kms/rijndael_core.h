/*
 * What rijndael_core.c offers: round keys, and kernels that chain blocks under them.
 */

#ifndef KMSPROTO_RIJNDAEL_CORE_H
#define KMSPROTO_RIJNDAEL_CORE_H

#include <stddef.h>
#include <stdint.h>

enum { BLOCK_LENGTH = 16, MAXIMUM_ROUNDS = 11 };

/* One for each round, and one before the first.  In decryption they come in the opposite order. */
typedef struct {
    int rounds;
    uint8_t encryption[MAXIMUM_ROUNDS + 1][BLOCK_LENGTH];
    uint8_t decryption[MAXIMUM_ROUNDS + 1][BLOCK_LENGTH];
} RoundKeys;

/* How blocks are chained, from a vector of zero.  "in" and "out" may not overlap. */
typedef struct {
    /* The output moves on by "stride" bytes a block: 0 leaves nothing but the last block. */
    void (*encrypt_cbc)(const RoundKeys *keys, const uint8_t *in, uint8_t *out, size_t blocks, size_t stride);
    void (*decrypt_cbc)(const RoundKeys *keys, const uint8_t *in, uint8_t *out, size_t blocks);
} Kernel;

extern const Kernel portable_kernel;

/* The kernel of AES instructions, or NULL if this processor has none or the compiler knew none. */
const Kernel *find_accelerated_kernel(void);

/* Expand a key of 16 or 20 bytes for encryption.  Return the number of bytes in "encryption". */
int expand_key(RoundKeys *keys, const uint8_t *key, int length);

/* Derive the round keys of decryption from those of encryption. */
void invert_key(RoundKeys *keys);

#endif

/*
 * What rijndael_keys.c offers: round keys of what Python gives.
 */

#ifndef KMSPROTO_RIJNDAEL_KEYS_H
#define KMSPROTO_RIJNDAEL_KEYS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "rijndael_core.h"

/*
 * Expand a key, change bytes of what comes out, and derive the round keys of decryption.
 *
 * The alterations are a mapping from offsets to what is to be XORed there, or None.  Return 0, or -1 with an exception
 * set if the key has another size than 16 or 20 bytes or one of the alterations cannot be made.
 */
int prepare_keys(RoundKeys *keys, const Py_buffer *key, PyObject *alterations);

#endif

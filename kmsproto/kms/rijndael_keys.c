/*
 * How the keys that Python gives become round keys, for both extensions.
 *
 * The errors and their texts are those of rijndael_tables.py.
 */

#define Py_LIMITED_API 0x030b0000
#include "rijndael_keys.h"

/* Change bytes of the expanded key.  Return -1 with an exception set if that cannot be done. */
static int
alter_key(RoundKeys *keys, Py_ssize_t length, PyObject *alterations)
{
    PyObject *items = PyMapping_Items(alterations);
    if (items == NULL) {
        return -1;
    }
    int status = -1;
    Py_ssize_t count = PyList_Size(items);
    for (Py_ssize_t index = 0; index < count; index++) {
        PyObject *offset_object, *mask_object;
        if (!PyArg_ParseTuple(PyList_GetItem(items, index), "OO", &offset_object, &mask_object)) {
            goto done;
        }
        /* Integers that are too large for the type become the largest that is not: out of range in either case. */
        Py_ssize_t offset = PyNumber_AsSsize_t(offset_object, NULL);
        if (offset == -1 && PyErr_Occurred()) {
            goto done;
        }
        Py_ssize_t mask = PyNumber_AsSsize_t(mask_object, NULL);
        if (mask == -1 && PyErr_Occurred()) {
            goto done;
        }
        if (offset < 0 || offset >= length) {
            PyErr_Format(PyExc_ValueError, "the expanded key has %zd bytes, and none at %S", length, offset_object);
            goto done;
        }
        if (mask < 0 || mask > 255) {
            PyErr_Format(PyExc_ValueError, "a byte is altered by 0 to 255, not by %S", mask_object);
            goto done;
        }
        keys->encryption[offset / BLOCK_LENGTH][offset % BLOCK_LENGTH] ^= (uint8_t)mask;
    }
    status = 0;
done:
    Py_DECREF(items);
    return status;
}

int
prepare_keys(RoundKeys *keys, const Py_buffer *key, PyObject *alterations)
{
    if (key->len != 16 && key->len != 20) {
        PyErr_Format(PyExc_ValueError, "a key has 16 or 20 bytes, not %zd", key->len);
        return -1;
    }
    Py_ssize_t length = expand_key(keys, key->buf, (int)key->len);
    if (alterations != Py_None && alter_key(keys, length, alterations) < 0) {
        return -1;
    }
    invert_key(keys);
    return 0;
}

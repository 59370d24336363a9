/*
 * The block cipher of KMS as Python sees it when it was compiled: the two kernels of rijndael_core.c as classes.
 *
 * PortableRijndael and AcceleratedRijndael differ in the kernel alone; where the processor has no AES instructions
 * there is no AcceleratedRijndael.  Both have the methods, errors and texts of their twin in rijndael_tables.py;
 * rijndael.py chooses among the three and tells what each method does.
 *
 * Nothing here changes after the module was loaded, and an object never changes after it was made.  The limited API of
 * Python 3.11 is all that is used, so one binary serves that version and those behind it.
 */

#define Py_LIMITED_API 0x030b0000
#include "rijndael_keys.h"

typedef struct {
    PyObject_HEAD
    const Kernel *kernel;
    RoundKeys keys;
} Rijndael;


/* Making a cipher */

static PyObject *
make(PyTypeObject *type, PyObject *args, PyObject *kwargs, const Kernel *kernel)
{
    static char *names[] = {"key", "alterations", NULL};
    Py_buffer key;
    PyObject *alterations = Py_None;
    Rijndael *self = NULL;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "y*|O:Rijndael", names, &key, &alterations)) {
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    self = (Rijndael *)allocate(type, 0);
    if (self != NULL) {
        self->kernel = kernel;
        if (prepare_keys(&self->keys, &key, alterations) < 0) {
            Py_CLEAR(self);
        }
    }
    PyBuffer_Release(&key);
    return (PyObject *)self;
}

static void
rijndael_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    /* Objects of types that are made at run time hold their type. */
    Py_DECREF(type);
}


/* Using it */

typedef enum { ENCRYPT, DECRYPT, MAC } Operation;

static PyObject *
run_kernel(const Rijndael *self, Operation operation, const uint8_t *in, Py_ssize_t length)
{
    PyObject *result = PyBytes_FromStringAndSize(NULL, operation == MAC ? BLOCK_LENGTH : length);
    if (result == NULL) {
        return NULL;
    }
    uint8_t *out = (uint8_t *)PyBytes_AsString(result);
    size_t blocks = (size_t)length / BLOCK_LENGTH;
    if (operation == DECRYPT) {
        self->kernel->decrypt_cbc(&self->keys, in, out, blocks);
    }
    else {
        self->kernel->encrypt_cbc(&self->keys, in, out, blocks, operation == MAC ? 0 : BLOCK_LENGTH);
    }
    return result;
}

/* Whether the operation takes that many bytes: one block, or whole blocks.  If not, an exception is set. */
static int
accepts_length(Operation operation, int one_block, Py_ssize_t length)
{
    if (one_block && length != BLOCK_LENGTH) {
        PyErr_Format(PyExc_ValueError, "a block has 16 bytes, not %zd", length);
        return 0;
    }
    if (length % BLOCK_LENGTH != 0) {
        PyErr_Format(PyExc_ValueError, "%zd bytes are no whole blocks", length);
        return 0;
    }
    if (operation == MAC && length == 0) {
        PyErr_SetString(PyExc_ValueError, "there is no MAC of no blocks");
        return 0;
    }
    return 1;
}

static PyObject *
transform(PyObject *self, PyObject *data, Operation operation, int one_block)
{
    PyObject *result = NULL;
    if (PyBytes_Check(data)) {
        /* As good as always, and faster than the buffer protocol. */
        char *in;
        Py_ssize_t length;
        if (PyBytes_AsStringAndSize(data, &in, &length) == 0 && accepts_length(operation, one_block, length)) {
            result = run_kernel((Rijndael *)self, operation, (const uint8_t *)in, length);
        }
        return result;
    }
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    if (accepts_length(operation, one_block, view.len)) {
        result = run_kernel((Rijndael *)self, operation, view.buf, view.len);
    }
    PyBuffer_Release(&view);
    return result;
}

/* A block is a chain of one, since the vector is zero. */

static PyObject *
rijndael_encrypt_block(PyObject *self, PyObject *block)
{
    return transform(self, block, ENCRYPT, 1);
}

static PyObject *
rijndael_decrypt_block(PyObject *self, PyObject *block)
{
    return transform(self, block, DECRYPT, 1);
}

static PyObject *
rijndael_encrypt_cbc(PyObject *self, PyObject *data)
{
    return transform(self, data, ENCRYPT, 0);
}

static PyObject *
rijndael_decrypt_cbc(PyObject *self, PyObject *data)
{
    return transform(self, data, DECRYPT, 0);
}

static PyObject *
rijndael_mac(PyObject *self, PyObject *data)
{
    return transform(self, data, MAC, 0);
}

static PyMethodDef rijndael_methods[] = {
    {"encrypt_block", rijndael_encrypt_block, METH_O, "Encrypt 16 bytes."},
    {"decrypt_block", rijndael_decrypt_block, METH_O, "Decrypt 16 bytes."},
    {"encrypt_cbc", rijndael_encrypt_cbc, METH_O, "Encrypt whole blocks, chained."},
    {"decrypt_cbc", rijndael_decrypt_cbc, METH_O, "Decrypt what encrypt_cbc made."},
    {"mac", rijndael_mac, METH_O, "Compute the CBC-MAC, the last block of the chain."},
    {NULL, NULL, 0, NULL},
};


/* The classes and the module */

static PyObject *
portable_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    return make(type, args, kwargs, &portable_kernel);
}

static PyType_Slot portable_slots[] = {
    {Py_tp_doc, "The cipher with one key, in portable C."},
    {Py_tp_new, portable_new},
    {Py_tp_dealloc, rijndael_dealloc},
    {Py_tp_methods, rijndael_methods},
    {0, NULL},
};

static PyType_Spec portable_spec = {
    .name = "kmsproto.kms._rijndael.PortableRijndael",
    .basicsize = sizeof(Rijndael),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = portable_slots,
};

static PyObject *
accelerated_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    return make(type, args, kwargs, find_accelerated_kernel());
}

static PyType_Slot accelerated_slots[] = {
    {Py_tp_doc, "The cipher with one key, in AES instructions."},
    {Py_tp_new, accelerated_new},
    {Py_tp_dealloc, rijndael_dealloc},
    {Py_tp_methods, rijndael_methods},
    {0, NULL},
};

static PyType_Spec accelerated_spec = {
    .name = "kmsproto.kms._rijndael.AcceleratedRijndael",
    .basicsize = sizeof(Rijndael),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = accelerated_slots,
};

/* Add a class under the last part of its name. */
static int
add_class(PyObject *module, PyType_Spec *spec)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (type == NULL) {
        return -1;
    }
    int status = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return status;
}

static int
rijndael_exec(PyObject *module)
{
    if (add_class(module, &portable_spec) < 0) {
        return -1;
    }
    if (find_accelerated_kernel() != NULL && add_class(module, &accelerated_spec) < 0) {
        return -1;
    }
    return 0;
}

static PyModuleDef_Slot rijndael_slots[] = {
    {Py_mod_exec, rijndael_exec},
    {0, NULL},
};

static struct PyModuleDef rijndael_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "kmsproto.kms._rijndael",
    .m_doc = "The block cipher of KMS in C.",
    .m_size = 0,
    .m_slots = rijndael_slots,
};

PyMODINIT_FUNC
PyInit__rijndael(void)
{
    return PyModuleDef_Init(&rijndael_module);
}

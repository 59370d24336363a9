Where there is a C compiler, kmsproto is installed with a native cipher, which uses the AES instructions of the
processor if it has them; elsewhere it does without.  ``kmsproto --version`` and the start of the log tell which is in
use.

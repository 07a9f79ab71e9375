/* Products with float32 results by VPDPBUSD in 256-bit registers. */
#include "kernels/x86/dot_avxvnni.h"
#include "kernels/x86/product_ymm.h"

/* What the processor can do, and what it is allowed to do. */
#ifndef RUNG_BASE_CPU_H
#define RUNG_BASE_CPU_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

enum {
    CPU_AVX2 = 1 << 0,        /* AVX2 and FMA */
    CPU_AVX512 = 1 << 1,      /* F, BW, DQ, VL */
    CPU_AVX512_VNNI = 1 << 2, /* with CPU_AVX512 */
    CPU_AVX_VNNI = 1 << 3,
    CPU_AMX_INT8 = 1 << 4,
    CPU_AVX512_VBMI = 1 << 5, /* with CPU_AVX512 */
};

/* The name of a bit as RUNG_CPU and reports call it: "avx2", "avx512", ...; i from 0 on, NULL
 * behind the last one. */
const char *cpu_feature(size_t i, unsigned *bit);

const char *cpu_level(void); /* the word in RUNG_CPU; NULL: it is not set */

/* What the machine has, whatever RUNG_CPU says. */
unsigned cpu_machine_bits(void);

/* The bits of this machine (the operating system saves the registers too), less what RUNG_CPU
 * forbids: "ref" none, "avx2" CPU_AVX2 only, "avxvnni" AVX2 + AVX_VNNI, "avx512vnni" AVX2 +
 * AVX512 + AVX512_VNNI, "amx" these and AMX_INT8. */
unsigned cpu_bits(void);
bool     cpu_has(unsigned needs); /* all of these bits; 0 is always true */

/* RUNG_EARGUMENT when RUNG_CPU holds a word that is not a level or asks for what the machine
 * lacks. Programs call it once at their start. */
rung_status cpu_check(rung_error *err);

const char *cpu_name(void); /* the processor's own name, for reports */

/* Set by tests in place of RUNG_CPU: mask of allowed bits; ~0u = all. */
void cpu_force(unsigned allowed);

#endif

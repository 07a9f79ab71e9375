#include "base/cpu.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

static const struct level {
    const char *name;
    unsigned bits;
} levels[] = {
    {"ref", 0},
    {"avx2", CPU_AVX2},
    {"avxvnni", CPU_AVX2 | CPU_AVX_VNNI},
    {"avx512vnni", CPU_AVX2 | CPU_AVX512 | CPU_AVX512_VNNI},
    {"amx", CPU_AVX2 | CPU_AVX512 | CPU_AVX512_VNNI | CPU_AMX_INT8},
    {NULL, 0},
};

static const struct level features[] = {
    {"avx2", CPU_AVX2},
    {"avxvnni", CPU_AVX_VNNI},
    {"avx512", CPU_AVX512},
    {"avx512vnni", CPU_AVX512_VNNI},
    {"avx512vbmi", CPU_AVX512_VBMI},
    {"amx", CPU_AMX_INT8},
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static unsigned machine_bits;
static char machine_name[80];

/* The bits that may be used, with KNOWN; 0 = not asked yet. */
static atomic_uint allowed_bits;
static const unsigned KNOWN = 1u << 31;

#if defined(__x86_64__)
static bool all_set(uint64_t word, uint64_t bits)
{
    return (word & bits) == bits;
}

/* The register sets that the operating system saves. */
static uint64_t saved_state(void)
{
    uint32_t low, high;

    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* Linux gives a process the tile registers only when it asks for them. */
static bool tiles_permitted(void)
{
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM */

    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

static unsigned detect(void)
{
    const uint64_t ymm = 0x6, zmm = 0xe6, tiles = 0x60000; /* XCR0: SSE, AVX | opmask, zmm | tile */
    const uint64_t avx512_f_dq_bw_vl = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
    unsigned a, b, c, d, bits = 0;

    if (!__get_cpuid(1, &a, &b, &c, &d) || !all_set(c, bit_OSXSAVE | bit_AVX | bit_FMA))
        return 0;
    const uint64_t state = saved_state();
    if (!all_set(state, ymm) || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !all_set(b, 1u << 5))
        return 0;
    bits |= CPU_AVX2;
    if (all_set(state, zmm) && all_set(b, avx512_f_dq_bw_vl))
        bits |= CPU_AVX512 | (all_set(c, 1u << 11) ? CPU_AVX512_VNNI : 0) |
                (all_set(c, 1u << 1) ? CPU_AVX512_VBMI : 0);
    if (all_set(state, tiles) && all_set(d, 1u << 24 | 1u << 25) && tiles_permitted())
        bits |= CPU_AMX_INT8;
    if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && all_set(a, 1u << 4))
        bits |= CPU_AVX_VNNI;
    return bits;
}

/* The brand string: 48 characters in three leaves, padded with blanks on either side. */
static void read_name(void)
{
    unsigned words[12];
    char brand[sizeof words + 1];

    for (unsigned i = 0; i < 3; i++)
        if (!__get_cpuid(0x80000002 + i, &words[4 * i], &words[4 * i + 1], &words[4 * i + 2],
                         &words[4 * i + 3]))
            return;
    memcpy(brand, words, sizeof words);
    brand[sizeof words] = '\0';
    const char *start = brand + strspn(brand, " ");
    size_t length = strlen(start);
    while (length && start[length - 1] == ' ')
        length--;
    memcpy(machine_name, start, length);
}
#else
static unsigned detect(void)
{
    return 0; /* the portable kernels need none */
}

static void read_name(void)
{
}
#endif

static void look_at_machine(void)
{
    struct utsname u;

    machine_bits = detect();
    read_name();
    if (!machine_name[0])
        snprintf(machine_name, sizeof machine_name, "%s",
                 uname(&u) == 0 ? u.machine : "unknown processor");
}

static unsigned machine(void)
{
    pthread_once(&once, look_at_machine);
    return machine_bits;
}

const char *cpu_feature(size_t i, unsigned *bit)
{
    if (i >= sizeof features / sizeof features[0])
        return NULL;
    *bit = features[i].bits;
    return features[i].name;
}

unsigned cpu_machine_bits(void)
{
    return machine();
}

/* The level that RUNG_CPU asks for: NULL with *word NULL when it is not set, NULL with *word when
 * that is not a level. */
static const struct level *asked_level(const char **word)
{
    *word = getenv("RUNG_CPU");
    if (*word && !**word)
        *word = NULL;
    for (const struct level *l = levels; *word && l->name; l++)
        if (strcmp(l->name, *word) == 0)
            return l;
    return NULL;
}

const char *cpu_level(void)
{
    const char *word;
    asked_level(&word);
    return word;
}

unsigned cpu_bits(void)
{
    unsigned allowed = atomic_load_explicit(&allowed_bits, memory_order_relaxed);

    if (!allowed) {
        const char *word;
        const struct level *l = asked_level(&word);
        allowed = (l ? l->bits : ~0u) | KNOWN;
        atomic_store_explicit(&allowed_bits, allowed, memory_order_relaxed);
    }
    return machine() & allowed;
}

bool cpu_has(unsigned needs)
{
    return (cpu_bits() & needs) == needs;
}

rung_status cpu_check(rung_error *err)
{
    const char *word;
    const struct level *l = asked_level(&word);

    if (word && !l)
        return fail(err, RUNG_EARGUMENT,
                    "RUNG_CPU=%s is not a level: use ref, avx2, avxvnni, avx512vnni or amx, or "
                    "unset it",
                    word);
    if (l && (machine() & l->bits) != l->bits)
        return fail(err, RUNG_EARGUMENT,
                    "RUNG_CPU=%s: this processor (%s) lacks it; use a lower level, or unset it",
                    word, cpu_name());
    return RUNG_OK;
}

const char *cpu_name(void)
{
    machine();
    return machine_name;
}

void cpu_force(unsigned allowed)
{
    atomic_store(&allowed_bits, allowed | KNOWN);
}

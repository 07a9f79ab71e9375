/* Words that kernels are written in: loops of a constant number of turns, and functions whose
 * constant arguments are constants of the compiler. */
#ifndef RUNG_KERNELS_X86_WORDS_H
#define RUNG_KERNELS_X86_WORDS_H

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 24")
#endif
#define INLINE static inline __attribute__((always_inline))

#endif

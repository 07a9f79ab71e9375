/* FakeQuantize as a prepared graph has it (qat.h): QuantizeLinear, where the codes are fewer than
 * the type's a Clip of the codes, DequantizeLinear. */
#ifndef RUNG_QUANT_FAKE_H
#define RUNG_QUANT_FAKE_H

#include "graph/op.h"

typedef struct fake_quantizer {
    const tensor *scale; /* float32: one, or one per channel of axis */
    const tensor *zero;  /* of the codes' type, as scale; NULL: 0, uint8 */
    int           axis;  /* -1: per tensor */
    int           lo, hi; /* ends of the codes */
} fake_quantizer;

/* Its nodes and values by index and id. */
typedef struct fake_nodes {
    int q, clip, dq; /* clip -1: none */
    int in, out;     /* real values: what is quantized, and what is read instead */
    int codes;       /* what QuantizeLinear makes: in the converted graph the codes themselves */
    int scale, zero; /* constants; zero -1: absent */
} fake_nodes;

/* Reads the pair that begins with node q, a QuantizeLinear of 8 bits with constant parameters whose
 * only use is a DequantizeLinear with the same ones, or such a Clip before it. False: it is no such
 * thing. u: uses of g. */
bool fake_read(const graph *g, const uses *u, int q, fake_quantizer *f, fake_nodes *n);

/* Its two halves: parameters and the ends of the type of a QuantizeLinear, and the ends that a Clip
 * of its codes has (false: n is none). */
void fake_codes_begin(const graph *g, const node *quantize, fake_quantizer *f);
bool fake_read_clip(const graph *g, const node *n, fake_quantizer *f);

dtype fake_type(const fake_quantizer *f);
/* Whether its codes are int8 with zero point 0, as those of weights are. */
bool fake_about_zero(const fake_quantizer *f);
/* The channel of element i of x is i / inner % channels. */
typedef struct fake_layout {
    size_t channels, inner;
} fake_layout;
/* False: x has not the dims that f is for. */
bool fake_layout_of(const fake_quantizer *f, const tensor *x, fake_layout *at);
/* q[i] = clamp(rne(x[i] / scale) + zero, lo, hi) as the byte of the type; NaN gives the zero point.
 * x: float32, of fitting dims; scale: [channels], in place of f->scale's data. */
void fake_codes(const fake_quantizer *f, const tensor *x, const float *scale, uint8_t *q);
/* t (float32, uint8 or int8), but with these numbers, which the type holds; NULL: memory is out. */
tensor *fake_constant(arena *mem, const tensor *t, const float *numbers);
/* Elements of x whose codes are not these get the value that these stand for. */
void fake_move(const fake_quantizer *f, const uint8_t *codes, tensor *x);

#endif

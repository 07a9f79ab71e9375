/* FakeQuantize in a graph: what it is, and the codes it gives a constant. */
#include "quant/fake.h"

#include <math.h>

#include "graph/pass.h"

/* --- reading ---------------------------------------------------------------------------------- */

/* The node that alone uses v, -1: none or several, or v is an output. */
static int only_user(const graph *g, const uses *u, int v)
{
    const bool one = u->first[v + 1] - u->first[v] == 1;
    return one && !g->values[v].is_output ? u->list[u->first[v]] : -1;
}

dtype fake_type(const fake_quantizer *f)
{
    return f->zero ? f->zero->type : RUNG_U8;
}

bool fake_about_zero(const fake_quantizer *f)
{
    for (size_t i = 0; f->zero && i < tensor_count(f->zero); i++)
        if (tensor_get_int(f->zero, i) != 0)
            return false;
    return fake_type(f) == RUNG_I8;
}

static bool has_parameters(const fake_quantizer *f)
{
    const size_t n = f->scale && f->scale->type == RUNG_F32 ? tensor_count(f->scale) : 0;
    const dtype type = fake_type(f);
    return n && f->scale->rank <= 1 && (type == RUNG_U8 || type == RUNG_I8) &&
           (!f->zero || tensor_count(f->zero) == n);
}

void fake_codes_begin(const graph *g, const node *quantize, fake_quantizer *f)
{
    *f = (fake_quantizer){ node_constant(g, quantize, 1), node_constant(g, quantize, 2), -1, 0,
                           255 };
    if (f->scale && tensor_count(f->scale) > 1)
        f->axis = (int)node_int(quantize, "axis", 1);
    if (fake_type(f) == RUNG_I8) {
        f->lo = -128;
        f->hi = 127;
    }
}

bool fake_read_clip(const graph *g, const node *n, fake_quantizer *f)
{
    const tensor *lo = node_constant(g, n, 1), *hi = node_constant(g, n, 2);
    if (!node_is(n, "Clip") || !lo || !hi || lo->type != fake_type(f) || hi->type != lo->type ||
        tensor_count(lo) != 1 || tensor_count(hi) != 1)
        return false;
    f->lo = (int)tensor_get_int(lo, 0);
    f->hi = (int)tensor_get_int(hi, 0);
    return f->lo < f->hi;
}

static bool same_operand(const node *a, const node *b, int i)
{
    return node_input(a, i) == node_input(b, i);
}

bool fake_read(const graph *g, const uses *u, int q, fake_quantizer *f, fake_nodes *out)
{
    const node *n = &g->nodes[q];
    if (n->dead || !node_is(n, "QuantizeLinear") || node_input(n, 0) < 0 || n->n_outputs != 1)
        return false;
    *out = (fake_nodes){ q, -1, -1, n->inputs[0], -1, n->outputs[0], node_input(n, 1),
                         node_input(n, 2) };
    fake_codes_begin(g, n, f);
    if (!has_parameters(f) || (out->zero >= 0 && !f->zero))
        return false;
    out->dq = only_user(g, u, out->codes);
    if (out->dq >= 0 && fake_read_clip(g, &g->nodes[out->dq], f)) {
        out->clip = out->dq;
        out->dq = only_user(g, u, g->nodes[out->clip].outputs[0]);
    }
    const node *dq = out->dq < 0 ? NULL : &g->nodes[out->dq];
    if (!dq || !node_is(dq, "DequantizeLinear") || !same_operand(n, dq, 1) ||
        !same_operand(n, dq, 2))
        return false;
    out->out = dq->outputs[0];
    return true;
}

/* --- codes ------------------------------------------------------------------------------------ */

bool fake_layout_of(const fake_quantizer *f, const tensor *x, fake_layout *at)
{
    const int axis = f->axis < 0 ? f->axis + x->rank : f->axis;
    *at = (fake_layout){ tensor_count(f->scale), tensor_count(x) };
    if (at->channels == 1)
        return true;
    if (axis < 0 || axis >= x->rank || x->dims[axis] != (int64_t)at->channels)
        return false;
    at->inner = dims_count(x->rank - axis - 1, x->dims + axis + 1);
    return at->inner > 0;
}

static int zero_of(const fake_quantizer *f, size_t channel)
{
    return f->zero ? (int)tensor_get_int(f->zero, channel) : 0;
}

static uint8_t code_of(const fake_quantizer *f, float x, float scale, float zero)
{
    const float q = nearbyintf(x / scale) + zero;
    return (uint8_t)(int)(isnan(q) ? zero : fminf(fmaxf(q, (float)f->lo), (float)f->hi));
}

void fake_codes(const fake_quantizer *f, const tensor *x, const float *scale, uint8_t *q)
{
    fake_layout at;
    const float *from = x->data;
    const size_t n = tensor_count(x);
    if (!fake_layout_of(f, x, &at))
        return;
    for (size_t i = 0, c = 0; i < n; c = c + 1 < at.channels ? c + 1 : 0) {
        const float zero = (float)zero_of(f, c);
        for (const size_t end = i + at.inner; i < end; i++)
            q[i] = code_of(f, from[i], scale[c], zero);
    }
}

tensor *fake_constant(arena *mem, const tensor *t, const float *numbers)
{
    tensor now = *t;
    if (t->type == RUNG_F32) {
        now.data = (void *)(uintptr_t)numbers;
        return tensor_copy(mem, &now);
    }
    tensor *made = tensor_copy(mem, t);
    for (size_t i = 0; made && i < tensor_count(t); i++)
        ((uint8_t *)made->data)[i] = (uint8_t)(int)numbers[i];
    return made;
}

void fake_move(const fake_quantizer *f, const uint8_t *codes, tensor *x)
{
    fake_layout at;
    float *to = x->data;
    const float *scale = f->scale->data;
    const size_t n = tensor_count(x);
    if (!fake_layout_of(f, x, &at))
        return;
    for (size_t i = 0, c = 0; i < n; c = c + 1 < at.channels ? c + 1 : 0) {
        const int zero = zero_of(f, c);
        for (const size_t end = i + at.inner; i < end; i++) {
            const int code = fake_type(f) == RUNG_I8 ? (int8_t)codes[i] : codes[i];
            if (code_of(f, to[i], scale[c], (float)zero) != codes[i] || !isfinite(to[i]))
                to[i] = (float)(code - zero) * scale[c];
        }
    }
}

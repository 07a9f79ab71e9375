/* Add, Sub, Mul, Div: the gradient of an operand is a term an element of the output, summed over
 * the axes along which the operand is repeated. */
#include <string.h>

#include "base/threads.h"
#include "nn/backward_rows.h"
#include "nn/broadcast.h"
#include "nn/vec.h"
#include "nn/vec_train.h"

#define PIECE 1024 /* elements of a term: they stay in the first cache */

typedef enum term {
    TERM_DY,       /* dy */
    TERM_MINUS_DY, /* -dy */
    TERM_PRODUCT,  /* dy * other */
    TERM_QUOTIENT, /* dy / other */
    TERM_DIVISOR,  /* -dy * other / own^2 */
} term;

typedef struct binary_op {
    const char *op;
    term        terms[2];
} binary_op;

static const binary_op operators[] = {
    {"Add", {TERM_DY, TERM_DY}},
    {"Div", {TERM_QUOTIENT, TERM_DIVISOR}},
    {"Mul", {TERM_PRODUCT, TERM_PRODUCT}},
    {"Sub", {TERM_DY, TERM_MINUS_DY}},
};

/* The gradient of one operand. */
typedef struct part {
    term term;
    bool wanted, sums; /* sums: several terms an element */
    int  dx;           /* buffer */
    size_t count;
} part;

typedef struct binary_back {
    const vec_ops   *ops;
    const vec_train *train;
    broadcast        rows;
    part             parts[2];
    int              dy;
} binary_back;

/* Where one operand and the other are, within the piece at hand. */
typedef struct place {
    const float *own, *other;
    int          own_step, other_step;
} place;

static void make_term(const binary_back *k, term t, const place *p, const float *dy, size_t n,
                      float *to)
{
    const float zero = 0.0f;
    switch (t) {
    case TERM_DY:
        memcpy(to, dy, n * sizeof *to);
        return;
    case TERM_MINUS_DY:
        k->ops->binary[VEC_SUB](&zero, 0, dy, 1, n, to);
        return;
    case TERM_PRODUCT:
        k->ops->binary[VEC_MUL](dy, 1, p->other, p->other_step, n, to);
        return;
    case TERM_QUOTIENT:
        k->ops->binary[VEC_DIV](dy, 1, p->other, p->other_step, n, to);
        return;
    case TERM_DIVISOR:
        k->ops->binary[VEC_MUL](dy, 1, p->other, p->other_step, n, to);
        k->ops->binary[VEC_DIV](to, 1, p->own, p->own_step, n, to);
        k->ops->binary[VEC_DIV](to, 1, p->own, p->own_step, n, to);
        k->ops->binary[VEC_SUB](&zero, 0, to, 1, n, to);
        return;
    }
}

/* Adds the terms to the one element, or the elements, that they belong to. */
static void add_term(const binary_back *k, term t, const place *p, const float *dy, size_t n,
                     float *scratch, float *to)
{
    const float *v = dy;
    float sum;
    if (t != TERM_DY) {
        make_term(k, t, p, dy, n, scratch);
        v = scratch;
    }
    if (p->own_step) {
        k->train->add(v, n, 1.0f, to);
        return;
    }
    k->ops->row_sum(v, 1, n, &sum);
    *to += sum;
}

/* Elements `at` to at + n of the output, which lie in one row from its element `offset` on. */
static void run_piece(const binary_back *k, const broadcast_cursor *c, size_t offset, size_t at,
                      size_t n, float *scratch, void *const *bufs)
{
    const broadcast *w = &k->rows;
    const float *dy = (const float *)bufs[k->dy] + at;
    const size_t begin[2] = {(size_t)c->a + (w->a_step ? offset : 0),
                             (size_t)c->b + (w->b_step ? offset : 0)};
    const float *a = source_data(&w->a, bufs), *b = source_data(&w->b, bufs);
    a = a ? a + begin[0] : NULL; /* of a sum they are not read, and may be gone */
    b = b ? b + begin[1] : NULL;
    const place places[2] = {{a, b, w->a_step, w->b_step}, {b, a, w->b_step, w->a_step}};
    for (int i = 0; i < 2; i++) {
        const part *p = &k->parts[i];
        if (!p->wanted)
            continue;
        float *to = (float *)bufs[p->dx] + begin[i];
        if (p->sums)
            add_term(k, p->term, &places[i], dy, n, scratch, to);
        else
            make_term(k, p->term, &places[i], dy, n, to);
    }
}

static void binary_run(const step *s, void *const *bufs, void *scratch, int thread, int n_threads)
{
    const binary_back *k = s->params;
    const broadcast *w = &k->rows;
    broadcast_cursor c;
    size_t at, last;
    for (int i = 0; i < 2; i++) {
        if (k->parts[i].wanted && k->parts[i].sums)
            memset(bufs[k->parts[i].dx], 0, k->parts[i].count * sizeof(float));
    }
    share(w->count, 16, thread, n_threads, &at, &last);
    broadcast_seek(w, at / w->inner, &c);
    for (size_t offset = at % w->inner; at < last;) {
        size_t n = w->inner - offset < last - at ? w->inner - offset : last - at;
        n = n < PIECE ? n : PIECE;
        run_piece(k, &c, offset, at, n, scratch, bufs);
        at += n;
        offset += n;
        if (offset == w->inner) {
            offset = 0;
            broadcast_next(w, &c);
        }
    }
}

static const binary_op *find_operator(const lowering *l)
{
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        if (strcmp(operators[i].op, l->n->op_type) == 0)
            return &operators[i];
    }
    return NULL;
}

rung_status binary_backward(const lowering *l, unsigned wanted, step *s, rung_error *err)
{
    const binary_op *op = find_operator(l);
    binary_back *k = arena_zero(l->mem, 1, sizeof *k);
    if (!k)
        return fail_memory(err, "a step", sizeof *k);
    if (!op || !has_input(l, 1))
        return fail(err, RUNG_EUNSUPPORTED, "no fast row for this gradient");
    const rung_status st = broadcast_open(l, &k->rows, err);
    if (st != RUNG_OK)
        return st;
    k->ops = vec_pick();
    k->train = vec_train_pick();
    k->dy = at_dout(l, 0);
    for (int i = 0; i < 2; i++) {
        part *p = &k->parts[i];
        *p = (part){.term = op->terms[i], .wanted = wants(wanted, i), .dx = at_din(l, i)};
        p->count = stored_count(&l->in[i]);
        p->sums = p->count != k->rows.count;
        if (p->wanted && l->in[i].constant)
            return fail(err, RUNG_EUNSUPPORTED, "the gradient of a constant");
        s->library = s->library || (p->wanted && p->sums); /* one thread adds up */
    }
    s->kernel = "binary_backward_f32 vec";
    s->run = binary_run;
    s->params = k;
    s->scratch_bytes = PIECE * sizeof(float);
    return RUNG_OK;
}

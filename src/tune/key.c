#include "tune/key.h"

#include <stdio.h>
#include <string.h>

#include "base/cpu.h"
#include "base/file.h"
#include "base/mem.h"
#include "onnx/onnx.h"
#include "train/checkpoint.h"

enum { SAMPLES = 8, TEXT = 1024 }; /* samples: at each end of a data set */

static uint64_t add_block(uint64_t key, const void *data, size_t n)
{
    return data ? checkpoint_hash(key, data, n) : key;
}

/* With its terminator, so that neighbours stay apart; NULL is not "". */
static uint64_t add_text(uint64_t key, const char *s)
{
    return s ? checkpoint_hash(key, s, strlen(s) + 1) : checkpoint_hash(key, "\1\2", 2);
}

uint64_t key_number(uint64_t key, double v)
{
    char text[64];
    snprintf(text, sizeof text, "%a", v);
    return add_text(key, text);
}

/* --- data ------------------------------------------------------------------------------------- */

static uint64_t add_batch(uint64_t key, const batch *b)
{
    for (int i = 0; i < b->n_inputs; i++) {
        const rung_tensor *t = &b->inputs[i].t;
        const size_t n = rung_tensor_bytes(t);
        key = add_text(key, b->inputs[i].name);
        key = add_block(key, t->dims, sizeof t->dims[0] * (size_t)t->rank);
        key = n != SIZE_MAX ? add_block(key, t->data, n) : key;
    }
    return add_block(key, b->labels, b->labels ? b->n * sizeof *b->labels : 0);
}

static rung_status add_data(dataset *d, const char *name, uint64_t *key, rung_error *err)
{
    const size_t n = dataset_size(d), some = n < 2 * SAMPLES ? n : 2 * SAMPLES;
    size_t order[2 * SAMPLES];
    loader *l = NULL;
    const batch *b = NULL;
    if (!n)
        return fail(err, RUNG_EARGUMENT, "%s: the data set is empty", name ? name : "data");
    for (size_t i = 0; i < some; i++)
        order[i] = n < 2 * SAMPLES || i < SAMPLES ? i : n - some + i;
    *key = key_number(add_text(*key, name), (double)n);
    rung_status st = loader_open(d, order, some, 1, &l, err);
    while (st == RUNG_OK && (st = loader_next(l, &b, err)) == RUNG_OK && b)
        *key = add_batch(*key, b);
    loader_free(l);
    return st;
}

rung_status key_begin(const graph *g, dataset *data, dataset *eval, const tune_options *opt,
                      uint64_t *key, size_t *size, rung_error *err)
{
    unsigned char *file = NULL;
    rung_status st = onnx_write(g, &file, size, err);
    if (st != RUNG_OK)
        return st;
    *key = add_text(checkpoint_hash(CHECKPOINT_HASH, file, *size), RUNG_VERSION);
    mem_free(file);
    *key = add_text(key_number(*key, cpu_bits()), cpu_name());
    if ((st = add_data(data, opt->data, key, err)) == RUNG_OK)
        st = add_data(eval, opt->eval, key, err);
    return st;
}

/* --- settings --------------------------------------------------------------------------------- */

static uint64_t add_list(uint64_t key, const char *const *names, int n)
{
    for (int i = 0; i < n; i++)
        key = add_text(key, names[i]);
    return key_number(key, n);
}

static uint64_t add_qconfig(uint64_t key, const char *name)
{
    file_map m;
    if (!name || file_map_open(name, &m, NULL) != RUNG_OK)
        return add_text(key, name);
    key = add_block(key, m.data, m.size);
    file_map_close(&m);
    return key;
}

uint64_t key_quant(uint64_t key, const rung_quant_options *o)
{
    char text[TEXT];
    snprintf(text, sizeof text, "%d %a %d %d %d %zu %llu %d %d %u %d %d %d %d %d %d %d %d %d",
             (int)o->range, o->percentile, (int)o->act_type, o->act_symmetric, o->per_tensor,
             o->samples, (unsigned long long)o->seed, o->n_threads, o->batch, o->methods,
             o->weight_bits, o->block, o->weight_asymmetric, o->act_bits, o->reduce_range,
             o->act_affine, o->per_channel, o->full_range, (int)o->pairs);
    key = add_qconfig(add_text(add_text(key, text), o->preprocess), o->qconfig);
    return add_list(add_list(key, o->exclude, o->n_exclude), o->ops, o->n_ops);
}

static uint64_t add_optimizer(uint64_t key, const optimizer_options *p)
{
    char text[TEXT];
    snprintf(text, sizeof text, "%d %a %a %d %a %a %a %a %a %a %d %a %a", (int)p->kind,
             (double)p->rate, (double)p->momentum, p->nesterov, (double)p->beta1,
             (double)p->beta2, (double)p->epsilon, (double)p->weight_decay, (double)p->clip_norm,
             (double)p->scale_rate, (int)p->schedule, (double)p->step_factor, (double)p->ema);
    return add_text(key, text);
}

uint64_t key_train(uint64_t key, const train_options *o)
{
    char text[TEXT];
    const trainer_options *t = &o->trainer;
    const loss_options *l = &t->loss;
    const augment_options *a = &o->augment;
    snprintf(text, sizeof text,
             "%a %a %a %a %a %a|%zu %zu %d %zu %a %a %a|%zu %a %a %llu %d|%d %d %d %a",
             (double)l->cross_entropy, (double)l->label_smoothing, (double)l->mse,
             (double)l->distill, (double)l->temperature, (double)l->features, t->batch, t->chunk,
             (int)t->scales, o->freeze_scales, (double)t->momentum, (double)t->dampen,
             (double)t->freeze_oscillating, o->epochs, o->warmup, o->step_epochs,
             (unsigned long long)o->seed, o->eval_batch, a->crop, a->flip, a->cutout,
             (double)a->mixup);
    key = add_text(add_optimizer(key, &t->optimizer), text);
    return add_list(key, t->features, t->n_features);
}

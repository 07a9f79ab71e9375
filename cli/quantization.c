/* The options that say how numbers are chosen: of quantize and of train. */
#include "cli.h"

#include <string.h>

static const choice ranges[] = { { "minmax", RUNG_RANGE_MINMAX }, { "ema", RUNG_RANGE_EMA },
                               { "percentile", RUNG_RANGE_PERCENTILE },
                               { "entropy", RUNG_RANGE_ENTROPY }, { "mse", RUNG_RANGE_MSE },
                               { NULL, 0 } };
static const choice act_types[] = { { "uint8", RUNG_U8 }, { "int8", RUNG_I8 },
                                  { "uint16", RUNG_U16 }, { "int16", RUNG_I16 }, { NULL, 0 } };
static const choice weight_schemes[] = { { "per-channel", 0 }, { "per-tensor", 1 }, { NULL, 0 } };

bool lookup(const choice *list, const char *name, int *value)
{
    if (!name)
        return true; /* not given: the default stays */
    for (; list->name; list++)
        if (strcmp(list->name, name) == 0) {
            *value = list->value;
            return true;
        }
    return false;
}

static const choice method_words[] = {
    { "auto", RUNG_METHOD_AUTO }, { "none", RUNG_METHOD_NONE },
    { "equalize", RUNG_METHOD_EQUALIZE },
    { "bias", RUNG_METHOD_BIAS }, { "clip", RUNG_METHOD_CLIP },
    { "adaround", RUNG_METHOD_ADAROUND }, { "gptq", RUNG_METHOD_GPTQ },
    { "smooth", RUNG_METHOD_SMOOTH }, { "awq", RUNG_METHOD_AWQ }, { "hqq", RUNG_METHOD_HQQ },
    { "tail", RUNG_METHOD_TAIL }, { "absorb", RUNG_METHOD_ABSORB },
    { NULL, 0 } };
static const choice pair_words[] = { { "auto", RUNG_PAIRS_AUTO }, { "all", RUNG_PAIRS_ALL },
                                   { "layers", RUNG_PAIRS_LAYERS }, { NULL, 0 } };

/* "auto", "none", or names of methods joined by commas. */
static bool take_methods(const char *text, unsigned *methods)
{
    char name[16];
    *methods = RUNG_METHOD_AUTO;
    for (bool first = true; text && *text; first = false) {
        const size_t n = strcspn(text, ",");
        int bit = 0;
        if (n >= sizeof name)
            return false;
        memcpy(name, text, n);
        name[n] = '\0';
        if (!lookup(method_words, name, &bit))
            return false;
        const bool alone = bit == RUNG_METHOD_AUTO || bit == RUNG_METHOD_NONE;
        if (alone && (!first || text[n]))
            return false;
        *methods |= (unsigned)bit;
        text += n + (text[n] == ',' && text[n + 1]);
        if (*text == ',')
            return false;
    }
    return true;
}

int quantization_options(const command *c, const options *o, rung_quant_options *q)
{
    int range = 0, act_type = 0, per_tensor = 0;
    if (!lookup(ranges, o->range, &range))
        return misused(c,
                       "--range '%s': minmax, ema, percentile, entropy or mse is wanted", o->range);
    if (!lookup(act_types, o->act_type, &act_type))
        return misused(c, "--act-type '%s': uint8, int8, uint16 or int16 is wanted",
                       o->act_type);
    if (!lookup(weight_schemes, o->weight_scheme, &per_tensor))
        return misused(c, "--weight-scheme '%s': per-channel or per-tensor is wanted",
                       o->weight_scheme);
    unsigned methods = RUNG_METHOD_AUTO;
    int pairs = RUNG_PAIRS_AUTO;
    if (!lookup(pair_words, o->pairs, &pairs))
        return misused(c, "--pairs '%s': auto, all or layers is wanted", o->pairs);
    if (!take_methods(o->method, &methods))
        return misused(c, "--method '%s': auto, none, or of equalize, bias, clip, "
                       "gptq, adaround, smooth, awq, hqq those that are wanted, joined by commas",
                       o->method);
    *q = (rung_quant_options){
        .size = sizeof *q, .range = (rung_range)range, .percentile = o->percentile,
        .act_type = (rung_dtype)act_type, .act_symmetric = o->symmetric,
        .per_tensor = per_tensor != 0, .exclude = o->exclude, .n_exclude = o->n_exclude,
        .ops = o->ops, .n_ops = o->n_ops, .samples = (size_t)o->samples,
        .seed = (uint64_t)o->seed, .n_threads = (int)o->threads, .batch = (int)o->batch,
        .quiet = o->quiet, .preprocess = o->preprocess, .methods = methods,
        .weight_bits = (int)o->weight_bits, .block = (int)o->block,
        .weight_asymmetric = o->weight_asymmetric, .qconfig = o->qconfig,
        .act_bits = (int)o->act_bits, .reduce_range = o->reduce_range,
        .per_channel = o->weight_scheme && !per_tensor, .pairs = (rung_pairs)pairs,
    };
    return EXIT_GOOD;
}

#include "quant/qconfig_parts.h"

#include <string.h>

#include "base/file.h"
#include "base/strmap.h"
#include "graph/pass.h"

enum { MOST_BYTES = 1 << 20 }; /* of a JSON file */

bool qsettings_wide(const qsettings *s)
{
    return s->act_type == RUNG_U16 || s->act_type == RUNG_I16;
}

int qsettings_bits(const qsettings *s)
{
    if (qsettings_wide(s))
        return 16;
    return s->reduce_range && s->act_bits > 7 ? 7 : s->act_bits;
}

void qconfig_free(qconfig *c)
{
    arena *mem = c ? c->mem : NULL; /* c lies in it */
    arena_free(mem);
}

void qconfig_for_training(qconfig *c)
{
    c->training = true;
}

static qsettings base_settings(const qconfig *c)
{
    const preset *p = c ? c->base : preset_find("default");
    return c && c->training && p->training ? *p->training : p->settings;
}

rung_scales qconfig_scales(const qconfig *c)
{
    if (c && c->scales != RUNG_SCALES_DEFAULT)
        return c->scales;
    return c && c->base->training ? RUNG_SCALES_OBSERVED : RUNG_SCALES_LEARNED;
}

bool qconfig_is_preset(const qconfig *c)
{
    return c && c->base != preset_find("default");
}

static rung_status load_preset(const preset *p, qconfig **out, rung_error *err)
{
    arena *mem = arena_new();
    qconfig *c = mem ? arena_zero(mem, 1, sizeof *c) : NULL;
    if (!c) {
        arena_free(mem);
        return fail_memory(err, "a qconfig", sizeof *c);
    }
    *c = (qconfig){ .mem = mem, .base = p };
    *out = c;
    return RUNG_OK;
}

static bool looks_like_a_name(const char *text)
{
    return !strchr(text, '.') && !strchr(text, '/');
}

rung_status qconfig_load(const char *name_or_file, qconfig **out, rung_error *err)
{
    const preset *p = preset_find(name_or_file ? name_or_file : "default");
    file_map m;
    char names[200];
    *out = NULL;
    if (p)
        return load_preset(p, out, err);
    rung_status st = file_map_open(name_or_file, &m, err);
    if (st != RUNG_OK && looks_like_a_name(name_or_file))
        return fail(err, RUNG_EARGUMENT, "qconfig '%s': there is neither such a file nor such a "
                    "preset; presets are %s", name_or_file, preset_names(names, sizeof names));
    if (st != RUNG_OK)
        return st;
    if (m.size > MOST_BYTES)
        st = fail(err, RUNG_EFORMAT, "%s: %zu bytes are too many for a qconfig", name_or_file,
                  m.size);
    else
        st = qconfig_parse((const char *)m.data, m.size, name_or_file, out, err);
    file_map_close(&m);
    return st;
}

/* --- resolving -------------------------------------------------------------------------------- */

static bool matches_node(const qrule *r, const node *n)
{
    return n && (!r->name || pattern_matches(r->name, n->name)) &&
           (!r->op || pattern_matches(r->op, n->op_type));
}

static bool matches(const qrule *r, const qsubject *s)
{
    if (r->tensor && (!s->tensor || !pattern_matches(r->tensor, s->tensor)))
        return false;
    return (!r->name && !r->op) || matches_node(r, s->makers[0]) || matches_node(r, s->makers[1]);
}

static void apply(const qrule *r, qsettings *s)
{
    const qsettings *from = &r->settings;
#define TAKE(key, field)                                                                           \
    if (r->keys >> (key) & 1)                                                                      \
        s->field = from->field
    TAKE(QKEY_WEIGHT_BITS, weight_bits);
    TAKE(QKEY_ACT_BITS, act_bits);
    TAKE(QKEY_ACT_TYPE, act_type);
    TAKE(QKEY_ACT_SYMMETRIC, act_symmetric);
    TAKE(QKEY_WEIGHT_SCHEME, per_tensor);
    TAKE(QKEY_RANGE, range);
    TAKE(QKEY_PERCENTILE, percentile);
    TAKE(QKEY_REDUCE_RANGE, reduce_range);
    TAKE(QKEY_EXCLUDE, exclude);
#undef TAKE
}

static void override(qsettings *s, const rung_quant_options *opt)
{
    if (opt->range != RUNG_RANGE_DEFAULT)
        s->range = opt->range;
    if (opt->percentile > 0)
        s->percentile = opt->percentile;
    if (opt->act_type != RUNG_UNDEFINED)
        s->act_type = opt->act_type;
    if (opt->act_bits)
        s->act_bits = opt->act_bits;
    if (opt->weight_bits)
        s->weight_bits = opt->weight_bits;
    s->act_symmetric = (s->act_symmetric && !opt->act_affine) || opt->act_symmetric;
    s->per_tensor = (s->per_tensor && !opt->per_channel) || opt->per_tensor;
    s->reduce_range = (s->reduce_range && !opt->full_range) || opt->reduce_range;
}

qsettings qconfig_resolve(const qconfig *c, const rung_quant_options *opt, const qsubject *s)
{
    qsettings out = base_settings(c);
    for (size_t i = 0; c && s && i < c->n_rules; i++)
        if (matches(&c->rules[i], s))
            apply(&c->rules[i], &out);
    override(&out, opt);
    return out;
}

bool qconfig_fixed_range(const qconfig *c, const node *n, float *lo, float *hi)
{
    for (const fixed_range *f = c ? c->base->fixed : NULL; f && f->op_type; f++)
        if (node_is(n, f->op_type)) {
            *lo = f->lo;
            *hi = f->hi;
            return true;
        }
    return false;
}

bool qconfig_ties(const qconfig *c, const node *n)
{
    for (const char *const *op = c ? c->base->ties : NULL; op && *op; op++)
        if (node_is(n, *op))
            return true;
    return false;
}

/* --- rules without use ------------------------------------------------------------------------ */

/* A tensor is matched together with the node that makes it, a constant with those that use it. */
static bool is_used(const qrule *r, const graph *g)
{
    bool names_node = r->name || r->op, any_node = !names_node, any_tensor = !r->tensor;
    for (size_t i = 0; i < g->n_nodes && !any_node; i++)
        any_node = !g->nodes[i].dead && matches_node(r, &g->nodes[i]);
    for (size_t v = 0; v < g->n_values && !any_tensor; v++)
        any_tensor = pattern_matches(r->tensor, g->values[v].name);
    return any_node && any_tensor;
}

void qconfig_report_unused(const qconfig *c, const graph *g, diagnostics *diag)
{
    char where[40];
    for (size_t i = 0; c && i < c->n_rules; i++) {
        if (is_used(&c->rules[i], g))
            continue;
        snprintf(where, sizeof where, "rules[%zu]", i);
        diagnose(diag, "rule-unused", where, "nothing in the model is called that: look at the "
                 "names of its nodes and tensors, or drop the rule");
    }
}

/* A qconfig as JSON: every key known, every value of its type and range, or a sentence with file,
 * line and key. cJSON knows no positions: line_of counts values in the text as in the tree. */
#include "quant/qconfig_parts.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/mem.h"

typedef struct reader {
    const char  *file, *text; /* text is terminated */
    size_t       size;
    const cJSON *tree;
    qconfig     *c;
    rung_error  *err;
} reader;

/* --- positions -------------------------------------------------------------------------------- */

static int line_at(const char *text, const char *at)
{
    int line = 1;
    for (; text < at; text++)
        line += *text == '\n';
    return line;
}

/* How many values stand before `item` in document order, added to *n. False: it is not below. */
static bool count_before(const cJSON *at, const cJSON *item, size_t *n)
{
    for (; at; at = at->next) {
        if (at == item)
            return true;
        ++*n;
        if (count_before(at->child, item, n))
            return true;
    }
    return false;
}

static const char *string_end(const char *at)
{
    for (at++; *at && *at != '"'; at++)
        if (*at == '\\' && at[1])
            at++;
    return *at ? at + 1 : at;
}

static bool is_space(char c)
{
    return c && (unsigned char)c <= ' '; /* as cJSON has it */
}

static const char *token_end(const char *at)
{
    if (*at == '"')
        return string_end(at);
    if (*at == '{' || *at == '[')
        return at + 1;
    while (*at && !is_space(*at) && !strchr("}],:", *at))
        at++;
    return at;
}

/* Where value n stands (in document order), or the key before it. The text is valid JSON. */
static const char *value_at(const char *text, size_t n)
{
    const char *key = NULL;
    for (const char *at = text; *at;) {
        if (is_space(*at) || strchr("}],:", *at) || (unsigned char)*at >= 0x80) { /* a BOM */
            at++;
            continue;
        }
        const char *end = token_end(at), *next = end;
        while (is_space(*next))
            next++;
        if (*at == '"' && *next == ':') {
            key = at;
        } else {
            if (n-- == 0)
                return key ? key : at;
            key = NULL;
        }
        at = end;
    }
    return text;
}

static int line_of(const reader *r, const cJSON *item)
{
    size_t n = 0;
    return count_before(r->tree, item, &n) ? line_at(r->text, value_at(r->text, n)) : 1;
}

/* path: where in the tree `item` stands, "rules[1].set". */
static rung_status wrong(const reader *r, const cJSON *item, const char *path, const char *fmt, ...)
    PRINTF_LIKE(4, 5);
static rung_status wrong(const reader *r, const cJSON *item, const char *path, const char *fmt, ...)
{
    char what[400];
    const char *key = item->string ? item->string : "";
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    return fail(r->err, RUNG_EFORMAT, "%s:%d: %s%s%s: %s", r->file, line_of(r, item), path,
                *path && *key ? "." : "", key, what);
}

/* --- values ----------------------------------------------------------------------------------- */

typedef struct word {
    const char *name;
    int         value;
} word;

static const word act_types[] = { { "uint8", RUNG_U8 }, { "int8", RUNG_I8 },
                                  { "uint16", RUNG_U16 }, { "int16", RUNG_I16 }, { NULL, 0 } };
static const word schemes[] = { { "per-channel", false }, { "per-tensor", true }, { NULL, 0 } };
static const word scale_modes[] = { { "learned", RUNG_SCALES_LEARNED },
                                    { "observed", RUNG_SCALES_OBSERVED },
                                    { "fixed", RUNG_SCALES_FIXED }, { NULL, 0 } };
static const word ranges[] = { { "minmax", RUNG_RANGE_MINMAX }, { "ema", RUNG_RANGE_EMA },
                               { "percentile", RUNG_RANGE_PERCENTILE },
                               { "entropy", RUNG_RANGE_ENTROPY }, { "mse", RUNG_RANGE_MSE },
                               { NULL, 0 } };

static const char *kind_of(const cJSON *item)
{
    return cJSON_IsString(item) ? "a string" : cJSON_IsNumber(item) ? "a number"
         : cJSON_IsBool(item) ? "true or false" : cJSON_IsArray(item) ? "an array"
         : cJSON_IsObject(item) ? "an object" : "null";
}

static rung_status take_word(const reader *r, const cJSON *item, const char *path,
                             const word *words, int *out)
{
    char list[120] = "";
    size_t at = 0;
    for (const word *w = words; w->name; w++) {
        if (cJSON_IsString(item) && strcmp(item->valuestring, w->name) == 0) {
            *out = w->value;
            return RUNG_OK;
        }
        at += (size_t)snprintf(list + at, sizeof list - at, "%s\"%s\"", w == words ? "" : ", ",
                               w->name);
    }
    if (cJSON_IsString(item))
        return wrong(r, item, path, "\"%.60s\" is none of %s", item->valuestring, list);
    return wrong(r, item, path, "one of %s is wanted, not %s", list, kind_of(item));
}

static rung_status take_number(const reader *r, const cJSON *item, const char *path, double lo,
                               double hi, bool whole, double *out)
{
    const char *noun = whole ? "a whole number" : "a number";
    if (!cJSON_IsNumber(item))
        return wrong(r, item, path, "%s is wanted, not %s", noun, kind_of(item));
    *out = item->valuedouble;
    if (!(*out >= lo && *out <= hi) || (whole && *out != floor(*out)))
        return wrong(r, item, path, "%g is not %s from %g to %g", *out, noun, lo, hi);
    return RUNG_OK;
}

static rung_status take_bits(const reader *r, const cJSON *item, const char *path, int *out)
{
    double bits = 0;
    const rung_status st = take_number(r, item, path, 2, 8, true, &bits);
    *out = (int)bits;
    return st;
}

static rung_status take_bool(const reader *r, const cJSON *item, const char *path, bool *out)
{
    *out = cJSON_IsTrue(item);
    return cJSON_IsBool(item)
               ? RUNG_OK
               : wrong(r, item, path, "true or false is wanted, not %s", kind_of(item));
}

static rung_status take_pattern(const reader *r, const cJSON *item, const char *path,
                                const char **out)
{
    if (!cJSON_IsString(item))
        return wrong(r, item, path, "a pattern (a string) is wanted, not %s", kind_of(item));
    if (!item->valuestring[0])
        return wrong(r, item, path, "the pattern is empty: it would match nothing");
    *out = arena_strdup(r->c->mem, item->valuestring);
    return *out ? RUNG_OK : fail_memory(r->err, "a qconfig", strlen(item->valuestring));
}

/* --- objects ---------------------------------------------------------------------------------- */

/* The index of the item's key in names (ended by NULL), -1 after a message. */
static int key_of(const reader *r, const cJSON *object, const cJSON *item, const char *path,
                  const char *const *names)
{
    char list[200] = "";
    size_t at = 0;
    for (const cJSON *before = object->child; before != item; before = before->next)
        if (strcmp(before->string, item->string) == 0) {
            wrong(r, item, path, "the key is there twice");
            return -1;
        }
    for (int i = 0; names[i]; i++) {
        if (strcmp(names[i], item->string) == 0)
            return i;
        at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", names[i]);
    }
    wrong(r, item, path, "there is no such key; keys here are %s", list);
    return -1;
}

static rung_status take_setting(const reader *r, const cJSON *item, int key, const char *path,
                                qsettings *s)
{
    int which = 0;
    rung_status st = RUNG_OK;
    switch (key) {
    case QKEY_WEIGHT_BITS: return take_bits(r, item, path, &s->weight_bits);
    case QKEY_ACT_BITS: return take_bits(r, item, path, &s->act_bits);
    case QKEY_ACT_TYPE:
        st = take_word(r, item, path, act_types, &which);
        s->act_type = (dtype)which;
        return st;
    case QKEY_ACT_SYMMETRIC: return take_bool(r, item, path, &s->act_symmetric);
    case QKEY_WEIGHT_SCHEME:
        st = take_word(r, item, path, schemes, &which);
        s->per_tensor = which != 0;
        return st;
    case QKEY_RANGE:
        st = take_word(r, item, path, ranges, &which);
        s->range = (rung_range)which;
        return st;
    case QKEY_PERCENTILE: return take_number(r, item, path, 50, 100, false, &s->percentile);
    case QKEY_REDUCE_RANGE: return take_bool(r, item, path, &s->reduce_range);
    default: return take_bool(r, item, path, &s->exclude);
    }
}

static rung_status take_set(const reader *r, const cJSON *set, const char *rule_path, qrule *to)
{
    static const char *const names[] = { "weight_bits", "act_bits", "act_type", "act_symmetric",
                                         "weight_scheme", "range", "percentile", "reduce_range",
                                         "exclude", NULL };
    _Static_assert(sizeof names / sizeof *names == N_QKEYS + 1, "one name for each key");
    char path[60];
    if (!cJSON_IsObject(set))
        return wrong(r, set, rule_path, "an object is wanted, not %s", kind_of(set));
    if (!set->child)
        return wrong(r, set, rule_path, "it is empty: say what to set");
    snprintf(path, sizeof path, "%s.set", rule_path);
    for (const cJSON *item = set->child; item; item = item->next) {
        const int key = key_of(r, set, item, path, names);
        if (key < 0)
            return RUNG_EFORMAT;
        const rung_status st = take_setting(r, item, key, path, &to->settings);
        if (st != RUNG_OK)
            return st;
        if (key == QKEY_EXCLUDE && to->tensor)
            return wrong(r, item, path, "nodes can be excluded, tensors can not: take \"tensor\" "
                         "out of this rule");
        to->keys |= 1u << key;
    }
    return RUNG_OK;
}

static rung_status take_rule(const reader *r, const cJSON *rule, size_t index, qrule *to)
{
    static const char *const names[] = { "name", "op", "tensor", "set", NULL };
    char path[40];
    const cJSON *set = NULL;
    rung_status st = RUNG_OK;
    snprintf(path, sizeof path, "rules[%zu]", index);
    if (!cJSON_IsObject(rule))
        return wrong(r, rule, path, "an object is wanted, not %s", kind_of(rule));
    for (const cJSON *item = rule->child; item && st == RUNG_OK; item = item->next) {
        switch (key_of(r, rule, item, path, names)) {
        case 0: st = take_pattern(r, item, path, &to->name); break;
        case 1: st = take_pattern(r, item, path, &to->op); break;
        case 2: st = take_pattern(r, item, path, &to->tensor); break;
        case 3: set = item; break;
        default: st = RUNG_EFORMAT;
        }
    }
    if (st != RUNG_OK)
        return st;
    return set ? take_set(r, set, path, to)
               : wrong(r, rule, path, "\"set\" is missing: what the rule sets");
}

static rung_status take_rules(const reader *r, const cJSON *rules)
{
    const size_t n = (size_t)cJSON_GetArraySize(rules);
    rung_status st = RUNG_OK;
    if (!cJSON_IsArray(rules))
        return wrong(r, rules, "", "an array of rules is wanted, not %s", kind_of(rules));
    if (!(r->c->rules = arena_zero(r->c->mem, n + 1, sizeof(qrule))))
        return fail_memory(r->err, "a qconfig", n * sizeof(qrule));
    for (const cJSON *rule = rules->child; rule && st == RUNG_OK; rule = rule->next) {
        st = take_rule(r, rule, r->c->n_rules, &r->c->rules[r->c->n_rules]);
        r->c->n_rules++;
    }
    return st;
}

static rung_status take_base(const reader *r, const cJSON *base)
{
    char names[200];
    if (!cJSON_IsString(base))
        return wrong(r, base, "", "a preset's name is wanted, not %s", kind_of(base));
    if (!(r->c->base = preset_find(base->valuestring)))
        return wrong(r, base, "", "there is no preset \"%.60s\"; presets are %s", base->valuestring,
                     preset_names(names, sizeof names));
    return RUNG_OK;
}

static rung_status take_scales(const reader *r, const cJSON *item)
{
    int which;
    const rung_status st = take_word(r, item, "", scale_modes, &which);
    r->c->scales = st == RUNG_OK ? (rung_scales)which : RUNG_SCALES_DEFAULT;
    return st;
}

static rung_status take_all(const reader *r)
{
    static const char *const names[] = { "base", "scales", "rules", NULL };
    rung_status st = RUNG_OK;
    if (!cJSON_IsObject(r->tree))
        return fail(r->err, RUNG_EFORMAT, "%s:1: an object with \"base\" and \"rules\" is wanted, "
                    "not %s", r->file, kind_of(r->tree));
    for (const cJSON *item = r->tree->child; item && st == RUNG_OK; item = item->next) {
        switch (key_of(r, r->tree, item, "", names)) {
        case 0: st = take_base(r, item); break;
        case 1: st = take_scales(r, item); break;
        case 2: st = take_rules(r, item); break;
        default: st = RUNG_EFORMAT;
        }
    }
    return st;
}

static rung_status read_text(reader *r)
{
    const char *end = NULL;
    cJSON *tree = cJSON_ParseWithLengthOpts(r->text, r->size + 1, &end, true);
    rung_status st;
    if (!tree || (size_t)(end - r->text) != r->size)
        st = fail(r->err, RUNG_EFORMAT, "%s:%d: this is not JSON: look at the commas, quotes and "
                  "brackets there", r->file, line_at(r->text, end ? end : r->text));
    else {
        r->tree = tree;
        st = take_all(r);
    }
    cJSON_Delete(tree);
    return st;
}

rung_status qconfig_parse(const char *text, size_t n, const char *file, qconfig **out,
                          rung_error *err)
{
    reader r = { .file = file, .size = n, .err = err };
    char *copy = mem_alloc(n + 1);
    rung_status st = copy ? qconfig_load(NULL, &r.c, err) : fail_memory(err, "a qconfig", n);
    *out = NULL;
    if (st == RUNG_OK) {
        if (n)
            memcpy(copy, text, n);
        copy[n] = '\0';
        r.text = copy;
        st = read_text(&r);
    }
    if (st == RUNG_OK)
        *out = r.c;
    else
        qconfig_free(r.c);
    mem_free(copy);
    return st;
}

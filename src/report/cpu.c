/* What the processor has, and which integer kernels run on it. */
#include "report/report.h"

#include <string.h>

#include <cjson/cJSON.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "kernels/tables.h"
#include "report/text.h"

/* A row of a table. */
typedef struct row {
    const kernel_table *table;
    size_t at; /* its place */
    const char *name;
    unsigned needs;
} row;

static bool row_of(const kernel_table *t, size_t i, row *r)
{
    *r = (row){.table = t, .at = i};
    return kernel_table_row(t, i, &r->name, &r->needs);
}

/* Whether the row runs for this layer; tables that do not look at shapes take layer NULL. */
static bool runs(const row *r, const kernel_layer *layer)
{
    if (r->table->by_shape)
        return conv_pick(&layer->shape) == conv_u8s8 + r->at;
    return kernel_row(r->table->rows, r->table->row_size) == r->at;
}

static bool is_chosen(const row *r)
{
    if (!r->table->by_shape)
        return runs(r, NULL);
    for (const kernel_layer *l = kernel_layers; l->name; l++)
        if (runs(r, l))
            return true;
    return false;
}

static const char *state_of(const row *r)
{
    if (is_chosen(r))
        return "chosen";
    if (cpu_has(r->needs))
        return "available";
    return (cpu_machine_bits() & r->needs) == r->needs ? "forbidden" : "missing";
}

/* --- text ------------------------------------------------------------------------------------- */
static void add_features(text *t)
{
    const char *name;
    unsigned bit;
    for (size_t i = 0; (name = cpu_feature(i, &bit)) != NULL; i++) {
        const bool there = cpu_machine_bits() & bit;
        text_add(t, "%-12s%s\n", name, !there ? "missing" : cpu_has(bit) ? "yes" : "forbidden");
    }
}

static void add_needs(text *t, unsigned needs)
{
    text line = {0};
    const char *name;
    unsigned bit;
    for (size_t i = 0; (name = cpu_feature(i, &bit)) != NULL; i++)
        if (needs & bit)
            text_add(&line, "%s%s", line.n ? "+" : "", name);
    text_add(t, " %-22s", needs && line.s ? line.s : "-");
    t->failed = t->failed || line.failed;
    mem_free(line.s);
}

static void add_row(text *t, const row *r)
{
    text_add(t, "%-20s %-22s", r->at ? "" : r->table->name, r->name);
    add_needs(t, r->needs);
    text_add(t, " %s", state_of(r));
    const char *separator = ": ";
    for (const kernel_layer *l = kernel_layers; r->table->by_shape && l->name; l++)
        if (runs(r, l)) {
            text_add(t, "%s%s", separator, l->name);
            separator = ", ";
        }
    text_add(t, "\n");
}

static rung_status cpu_text(char **out, rung_error *err)
{
    text t = {0};
    row r;
    text_add(&t, "processor   %s\n", cpu_name());
    text_add(&t, "RUNG_CPU    %s\n\n", cpu_level() ? cpu_level() : "not set");
    add_features(&t);
    text_add(&t, "\n%-20s %-22s %-22s %s\n", "table", "kernel", "needs", "state");
    for (const kernel_table *k = kernel_tables; k->name; k++)
        for (size_t i = 0; row_of(k, i, &r); i++)
            add_row(&t, &r);
    return text_take(&t, out, err);
}

/* --- JSON ------------------------------------------------------------------------------------- */
static bool add_feature_objects(cJSON *root)
{
    cJSON *list = cJSON_AddArrayToObject(root, "features");
    const char *name;
    unsigned bit;
    bool good = list;
    for (size_t i = 0; good && (name = cpu_feature(i, &bit)) != NULL; i++) {
        cJSON *o = cJSON_CreateObject();
        good = o && cJSON_AddItemToArray(list, o) && cJSON_AddStringToObject(o, "name", name) &&
               cJSON_AddBoolToObject(o, "machine", (cpu_machine_bits() & bit) != 0) &&
               cJSON_AddBoolToObject(o, "allowed", cpu_has(bit));
    }
    return good;
}

static bool add_string(cJSON *list, const char *s)
{
    cJSON *o = cJSON_CreateString(s);
    return o && cJSON_AddItemToArray(list, o);
}

static bool add_row_object(cJSON *list, const row *r)
{
    cJSON *o = cJSON_CreateObject();
    if (!o || !cJSON_AddItemToArray(list, o))
        return false;
    bool good = cJSON_AddStringToObject(o, "name", r->name);
    cJSON *needs = cJSON_AddArrayToObject(o, "needs");
    const char *name;
    unsigned bit;
    good = good && needs;
    for (size_t i = 0; good && (name = cpu_feature(i, &bit)) != NULL; i++)
        good = !(r->needs & bit) || add_string(needs, name);
    good = good && cJSON_AddStringToObject(o, "state", state_of(r));
    if (!good || !r->table->by_shape)
        return good;
    cJSON *layers = cJSON_AddArrayToObject(o, "layers");
    good = layers;
    for (const kernel_layer *l = kernel_layers; good && l->name; l++)
        good = !runs(r, l) || add_string(layers, l->name);
    return good;
}

static bool add_tables(cJSON *root)
{
    cJSON *list = cJSON_AddArrayToObject(root, "tables");
    bool good = list;
    row r;
    for (const kernel_table *k = kernel_tables; good && k->name; k++) {
        cJSON *o = cJSON_CreateObject();
        good = o && cJSON_AddItemToArray(list, o) && cJSON_AddStringToObject(o, "name", k->name);
        cJSON *rows = good ? cJSON_AddArrayToObject(o, "kernels") : NULL;
        good = rows;
        for (size_t i = 0; good && row_of(k, i, &r); i++)
            good = add_row_object(rows, &r);
    }
    return good;
}

static bool add_all(cJSON *root)
{
    const char *level = cpu_level();
    return root && cJSON_AddStringToObject(root, "processor", cpu_name()) &&
           (level ? cJSON_AddStringToObject(root, "level", level)
                  : cJSON_AddNullToObject(root, "level")) &&
           add_feature_objects(root) && add_tables(root);
}

static rung_status cpu_json(char **out, rung_error *err)
{
    text t = {0};
    cJSON *root = cJSON_CreateObject();
    char *printed = add_all(root) ? cJSON_PrintUnformatted(root) : NULL;
    text_add(&t, "%s\n", printed ? printed : "");
    t.failed = t.failed || !printed;
    cJSON_free(printed);
    cJSON_Delete(root);
    return text_take(&t, out, err);
}

rung_status report_cpu(bool json, char **out, rung_error *err)
{
    return json ? cpu_json(out, err) : cpu_text(out, err);
}

#include "tune/store.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cjson/cJSON.h>

#include "base/file.h"
#include "base/mem.h"
#include "onnx/onnx.h"
#include "train/checkpoint.h"

enum { VERSION = 2, MOST_BYTES = 1 << 16 }; /* of a record */
#define MOST 1e15 /* beyond any number of bytes or seconds, and exact */

/* --- places ----------------------------------------------------------------------------------- */

rung_status store_open(const char *work, rung_error *err)
{
    if (mkdir(work, 0777) != 0 && errno != EEXIST)
        return fail(err, RUNG_EIO, "%s: %s", work, strerror(errno));
    if (!path_is_directory(work))
        return fail(err, RUNG_EIO, "%s: a folder is wanted, to keep trials in", work);
    return RUNG_OK;
}

rung_status store_path(const char *work, trial_kind k, uint64_t key, const char *ending,
                       char path[STORE_PATH], rung_error *err)
{
    const int n = snprintf(path, STORE_PATH, "%s/%s-%016" PRIx64 ".%s", work, trial_key(k), key,
                           ending);
    if (n > 0 && n < STORE_PATH)
        return RUNG_OK;
    return fail(err, RUNG_EARGUMENT, "the path of the folder of trials is too long");
}

/* --- models ----------------------------------------------------------------------------------- */

static size_t file_bytes(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 && s.st_size > 0 ? (size_t)s.st_size : 0;
}

/* External data lies beside the model. */
static size_t model_bytes(const char *path)
{
    char data[STORE_PATH + 8];
    snprintf(data, sizeof data, "%s.data", path);
    return file_bytes(path) + file_bytes(data);
}

static bool hash_file(const char *path, uint64_t *hash)
{
    file_map m;
    if (file_map_open(path, &m, NULL) != RUNG_OK)
        return false;
    *hash = checkpoint_hash(CHECKPOINT_HASH, m.data, m.size);
    file_map_close(&m);
    return true;
}

rung_status store_model(const char *work, trial_kind k, uint64_t key, const graph *g, size_t *size,
                        rung_error *err)
{
    char path[STORE_PATH];
    rung_status st = store_path(work, k, key, "onnx", path, err);
    if (st == RUNG_OK && (st = onnx_write_file(g, path, false, err)) == RUNG_OK)
        *size = model_bytes(path);
    return st;
}

rung_status store_load(const char *work, trial_kind k, uint64_t key, graph **out, rung_error *err)
{
    char path[STORE_PATH];
    const rung_status st = store_path(work, k, key, "onnx", path, err);
    return st == RUNG_OK ? onnx_read_file(path, out, err) : st;
}

/* --- reading ---------------------------------------------------------------------------------- */

/* A number of [lo, hi]; null, where `open`, is NaN. */
static bool take(const cJSON *o, const char *key, double lo, double hi, bool open, double *out)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, key);
    if (open && cJSON_IsNull(v)) {
        *out = NAN;
        return true;
    }
    if (!cJSON_IsNumber(v) || !(v->valuedouble >= lo && v->valuedouble <= hi))
        return false;
    *out = v->valuedouble;
    return true;
}

static bool take_count(const cJSON *o, const char *key, size_t *out)
{
    double v;
    if (!take(o, key, 0, MOST, false, &v) || v != floor(v))
        return false;
    *out = (size_t)v;
    return true;
}

static bool take_hex(const cJSON *o, const char *key, uint64_t *out)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, key);
    if (!cJSON_IsString(v) || strlen(v->valuestring) != 16 ||
        strspn(v->valuestring, "0123456789abcdef") != 16)
        return false;
    *out = strtoull(v->valuestring, NULL, 16);
    return true;
}

static bool take_figures(const cJSON *o, tune_trial *t)
{
    return take(o, "top1", -1, 100, false, &t->top1) &&
           take(o, "agreement", -1, 100, false, &t->agreement) &&
           take(o, "loss", -MOST, MOST, true, &t->loss) &&
           take(o, "sqnr_db", -MOST, MOST, true, &t->sqnr_db) &&
           take_count(o, "bytes", &t->bytes) && t->bytes > 0 &&
           take(o, "ms", 0, MOST, false, &t->ms) &&
           take(o, "ratio", 0, MOST, false, &t->ratio) &&
           take(o, "int_share", 0, 1, false, &t->int_share) &&
           take_count(o, "wide_layers", &t->wide_layers) &&
           take_count(o, "float_layers", &t->float_layers) &&
           take(o, "wide_share", 0, 1, false, &t->wide_share) &&
           take(o, "float_share", 0, 1, false, &t->float_share);
}

static bool take_note(const cJSON *o, tune_trial *t)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, "note");
    if (!cJSON_IsString(v) || strlen(v->valuestring) >= sizeof t->note)
        return false;
    memcpy(t->note, v->valuestring, strlen(v->valuestring) + 1);
    return true;
}

static bool take_all(const cJSON *o, trial_kind k, uint64_t key, stored *out, uint64_t *check)
{
    const cJSON *kind = cJSON_GetObjectItemCaseSensitive(o, "trial");
    const cJSON *done = cJSON_GetObjectItemCaseSensitive(o, "done");
    double version;
    uint64_t whose;
    tune_trial *t = &out->trial;
    if (!take(o, "version", VERSION, VERSION, false, &version) || !cJSON_IsString(kind) ||
        strcmp(kind->valuestring, trial_key(k)) != 0 || !take_hex(o, "key", &whose) ||
        whose != key || !cJSON_IsBool(done) || !take_count(o, "epochs", &t->epochs) ||
        !take(o, "seconds", 0, MOST, false, &t->seconds) ||
        !take(o, "time_budget", 0, MOST, false, &out->time_budget))
        return false;
    out->state = cJSON_IsTrue(done) ? STORE_DONE : STORE_BEGUN;
    t->state = out->state == STORE_DONE ? TRIAL_DONE : TRIAL_UNTRIED;
    return out->state == STORE_BEGUN ||
           (take_hex(o, "model", check) && take_note(o, t) && take_figures(o, t));
}

bool store_parse(const char *text, size_t n, trial_kind k, uint64_t key, stored *out,
                 uint64_t *check)
{
    *out = (stored){ 0 };
    *check = 0;
    cJSON *o = n <= MOST_BYTES ? cJSON_ParseWithLength(text, n) : NULL;
    const bool good = cJSON_IsObject(o) && take_all(o, k, key, out, check);
    cJSON_Delete(o);
    if (!good)
        *out = (stored){ 0 };
    return good;
}

store_state store_read(const char *work, trial_kind k, uint64_t key, stored *out)
{
    char path[STORE_PATH];
    uint64_t check, now;
    file_map m;
    *out = (stored){ 0 };
    if (store_path(work, k, key, "json", path, NULL) != RUNG_OK ||
        file_map_open(path, &m, NULL) != RUNG_OK)
        return STORE_NONE;
    const bool good = m.data && store_parse((const char *)m.data, m.size, k, key, out, &check);
    file_map_close(&m);
    if (!good || out->state != STORE_DONE)
        return out->state;
    if (store_path(work, k, key, "onnx", path, NULL) != RUNG_OK || !hash_file(path, &now) ||
        now != check || model_bytes(path) != out->trial.bytes)
        *out = (stored){ 0 };
    return out->state;
}

/* --- writing ---------------------------------------------------------------------------------- */

static bool put(cJSON *o, const char *key, double v)
{
    return isfinite(v) ? cJSON_AddNumberToObject(o, key, v) : cJSON_AddNullToObject(o, key);
}

static bool put_hex(cJSON *o, const char *key, uint64_t v)
{
    char text[17];
    snprintf(text, sizeof text, "%016" PRIx64, v);
    return cJSON_AddStringToObject(o, key, text);
}

static bool put_figures(cJSON *o, const tune_trial *t, uint64_t check)
{
    return put_hex(o, "model", check) && cJSON_AddStringToObject(o, "note", t->note) &&
           put(o, "top1", t->top1) && put(o, "agreement", t->agreement) &&
           put(o, "loss", t->loss) && put(o, "sqnr_db", t->sqnr_db) &&
           put(o, "bytes", (double)t->bytes) && put(o, "ms", t->ms) && put(o, "ratio", t->ratio) &&
           put(o, "int_share", t->int_share) &&
           put(o, "wide_layers", (double)t->wide_layers) &&
           put(o, "float_layers", (double)t->float_layers) &&
           put(o, "wide_share", t->wide_share) && put(o, "float_share", t->float_share);
}

static bool put_all(cJSON *o, trial_kind k, uint64_t key, const stored *s, uint64_t check)
{
    const bool done = s->state == STORE_DONE;
    return o && put(o, "version", VERSION) && cJSON_AddStringToObject(o, "trial", trial_key(k)) &&
           put_hex(o, "key", key) && cJSON_AddBoolToObject(o, "done", done) &&
           put(o, "epochs", (double)s->trial.epochs) && put(o, "seconds", s->trial.seconds) &&
           put(o, "time_budget", s->time_budget) && (!done || put_figures(o, &s->trial, check));
}

rung_status store_write(const char *work, trial_kind k, uint64_t key, const stored *s,
                        rung_error *err)
{
    char path[STORE_PATH];
    uint64_t check = 0;
    rung_status st = store_path(work, k, key, "onnx", path, err);
    if (st == RUNG_OK && s->state == STORE_DONE && !hash_file(path, &check))
        st = fail(err, RUNG_EIO, "%s: it was written a moment ago and cannot be read", path);
    if (st == RUNG_OK)
        st = store_path(work, k, key, "json", path, err);
    if (st != RUNG_OK)
        return st;
    cJSON *o = cJSON_CreateObject();
    char *text = put_all(o, k, key, s, check) ? cJSON_Print(o) : NULL;
    st = text ? file_write_whole(path, text, strlen(text), err)
              : fail_memory(err, "a record", MOST_BYTES);
    cJSON_free(text);
    cJSON_Delete(o);
    return st;
}

#include "cli.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int feed(rung_session *s, const rung_tensor *arrays)
{
    for (int i = 0; i < rung_session_n_inputs(s); i++) {
        const rung_tensor *to = rung_session_input(s, i);
        if (arrays[i].type != to->type) {
            fprintf(stderr,
                    "rung run: input '%s': the array's element type is not the model's; "
                    "convert it first ('rung inspect' says which is wanted)\n",
                    rung_session_input_name(s, i));
            return EXIT_FAILED;
        }
        memcpy(to->data, arrays[i].data,
               rung_tensor_bytes(to)); /* the session took the array's dims */
    }
    return EXIT_GOOD;
}

/* Characters outside [A-Za-z0-9._-] are '_' in a file's name. */
static char file_char(char c)
{
    return c == '\0' || isalnum((unsigned char)c) || strchr("._-", c) ? c : '_';
}

static bool same_file_name(const char *a, const char *b)
{
    while (*a && file_char(*a) == file_char(*b)) {
        a++;
        b++;
    }
    return file_char(*a) == file_char(*b);
}

/* DIR/NAME.npy; DIR/NAME@2.npy, @3 ... where an output before has the same file name. The caller
 * frees it; NULL: memory is out. */
static char *output_path(const rung_session *s, int i, const char *dir)
{
    const char *name = rung_session_output_name(s, i);
    char *path = NULL;
    int same = 1, length;
    for (int j = 0; j < i; j++)
        same += same_file_name(rung_session_output_name(s, j), name);
    if (same > 1)
        length = asprintf(&path, "%s/%s@%d.npy", dir, name, same);
    else
        length = asprintf(&path, "%s/%s.npy", dir, name);
    if (length < 0)
        return NULL;
    char *at = path + strlen(dir) + 1;
    for (size_t k = 0; k < strlen(name); k++)
        at[k] = file_char(at[k]);
    return path;
}

static int save_output(const rung_session *s, int i, const char *dir)
{
    rung_error err = {"out of memory"};
    char *path = output_path(s, i, dir);
    const bool saved = path && rung_npy_save(path, rung_session_output(s, i), &err) == RUNG_OK;
    if (saved)
        fprintf(stderr, "%s\n", path);
    free(path);
    return saved ? EXIT_GOOD : failed(&cmd_run, &err);
}

static int save_outputs(const rung_session *s, const char *dir)
{
    if (mkdir(dir, 0777) != 0 && errno != EEXIST) {
        fprintf(stderr, "rung run: cannot make folder '%s': %s\n", dir, strerror(errno));
        return EXIT_FAILED;
    }
    int status = EXIT_GOOD;
    for (int i = 0; i < rung_session_n_outputs(s) && status == EXIT_GOOD; i++)
        status = save_output(s, i, dir);
    return status;
}

static int run_model(const options *o, const rung_model *model, const rung_tensor *arrays)
{
    rung_session *s = NULL;
    rung_error err;
    int status;
    const rung_session_options so = {
        .size = sizeof so, .n_threads = (int)o->threads, .inputs = arrays};
    if (rung_session_create(model, &so, &s, &err) != RUNG_OK)
        return failed(&cmd_run, &err);
    status = feed(s, arrays);
    if (status == EXIT_GOOD && rung_session_run(s, &err) != RUNG_OK)
        status = failed(&cmd_run, &err);
    if (status == EXIT_GOOD)
        status = save_outputs(s, o->output);
    rung_session_free(s);
    return status;
}

static int run(int argc, char **argv)
{
    options o;
    rung_model *model = NULL;
    rung_tensor *arrays = NULL;
    rung_error err;
    int status = options_parse(&cmd_run, argc, argv, "input output threads", &o);
    if (status != EXIT_GOOD || o.help)
        goto done;
    if (!o.output) {
        status = misused(&cmd_run, "--output DIR is missing: where the results go");
        goto done;
    }
    if (rung_model_load(o.model, &model, &err) != RUNG_OK) {
        status = failed(&cmd_run, &err);
        goto done;
    }
    status = inputs_load(&cmd_run, &o, model, &arrays);
    if (status == EXIT_GOOD)
        status = run_model(&o, model, arrays);
done:
    inputs_free(arrays, model);
    rung_model_free(model);
    options_free(&o);
    return status;
}

const command cmd_run = {
    "run",
    "runs a model on .npy arrays, writes its outputs as .npy",
    "Usage: rung run MODEL --input NAME=FILE.npy ... --output DIR [--threads N]\n\n"
    "Runs the model once. Open dimensions take the arrays' sizes. Each output is written to\n"
    "DIR/NAME.npy; characters of NAME outside [A-Za-z0-9._-] become '_'. Where two outputs would\n"
    "have one file, the second is NAME@2.npy.\n\n"
    "  --input NAME=FILE   one for every input of the model\n"
    "  -o, --output DIR    made when it is not there\n"
    "  --threads N         default: all processors\n\n"
    "Example:\n"
    "  rung run net_int8.onnx --input input=x.npy --output results\n",
    run,
};

#include "cli.h"

#include <sys/stat.h>

static size_t file_bytes(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 ? (size_t)s.st_size : 0;
}

/* Prints the text or the object, and writes the page where one is wanted. */
static int report(const options *o, const rung_comparison *c)
{
    rung_error err;
    char *text = NULL;
    if ((o->html && rung_comparison_save_html(c, o->html, &err) != RUNG_OK) ||
        rung_comparison_text(c, o->json, &text, &err) != RUNG_OK)
        return failed(&cmd_compare, &err);
    fputs(text, stdout);
    rung_text_free(text);
    return finish(&cmd_compare);
}

static int compare(const options *o, rung_model **reference, rung_model **model)
{
    rung_dataset *data = NULL;
    rung_comparison *c = NULL;
    rung_error err;
    int status;
    const rung_compare_options co = {
        .size = sizeof co, .samples = (size_t)o->samples, .seed = (uint64_t)o->seed,
        .n_threads = (int)o->threads, .seconds = o->seconds, .quiet = o->quiet,
        .reference_title = o->model, .model_title = o->second, .data_title = o->data,
        .reference_bytes = file_bytes(o->model), .model_bytes = file_bytes(o->second),
        .sensitivity = o->sensitivity,
    };
    if (rung_model_load(o->model, reference, &err) != RUNG_OK ||
        rung_model_load(o->second, model, &err) != RUNG_OK ||
        rung_dataset_open(o->data, o->preprocess, *model, (int)o->threads, &data, &err) !=
            RUNG_OK ||
        rung_compare(*reference, *model, data, &co, &c, &err) != RUNG_OK) {
        status = failed(&cmd_compare, &err);
        goto done;
    }
    if (rung_dataset_is_random(data))
        fprintf(stderr, "remark: random-data: errors and accuracy on random data mean nothing\n");
    status = report(o, c);
done:
    rung_comparison_free(c);
    rung_dataset_free(data);
    return status;
}

static int run(int argc, char **argv)
{
    options o;
    rung_model *reference = NULL, *model = NULL;
    int status = options_parse(&cmd_compare, argc, argv,
                               "MODEL2 data samples seed seconds html sensitivity preprocess "
                               "threads json quiet", &o);
    if (status != EXIT_GOOD || o.help)
        goto done;
    status = o.data ? compare(&o, &reference, &model)
                    : misused(&cmd_compare, "--data is missing: the samples to compare on");
done:
    rung_model_free(model);
    rung_model_free(reference);
    options_free(&o);
    return status;
}

const command cmd_compare = {
    "compare", "an int8 model beside its float model: which layers lose accuracy, and what to do",
    "Usage: rung compare FLOAT INT8 --data D [--html FILE] [options]\n\n"
    "Runs both models over the data and holds them against each other: size, latency (in turns),\n"
    "accuracy, the error of every quantized tensor along the network and of each layer alone, the\n"
    "clipping, the weights of every channel, the decisions that changed. Names the ten layers\n"
    "that add most error, each with what to do. FLOAT is the model that INT8 was made from.\n\n"
    "  --data D            FORMAT:PATH[,PATH][@A:B] as in 'rung quantize --help'\n"
    "  --html FILE         one page with charts, in one file\n"
    "  --sensitivity       what each layer alone does to the network's output, and its time; the\n"
    "                      rest of the network is run for every layer, on up to 64 samples\n"
    "  --samples N         as many of the data, chosen by --seed; default: all\n"
    "  --seed N            default 0\n"
    "  --seconds S         of measuring latency; default 1\n"
    "  --preprocess TEXT   default: the one stored in INT8\n"
    "  --threads N         default: all processors\n"
    "  --json              one object with everything; docs/cli.md lists its keys\n"
    "  --quiet             no progress\n\n"
    "Examples:\n"
    "  rung compare net.onnx net_int8.onnx --data images:val --samples 200 --html report.html\n"
    "  rung compare net.onnx net_int8.onnx --data cifar10:test_batch.bin --json\n",
    run,
};

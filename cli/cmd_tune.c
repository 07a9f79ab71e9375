#include "cli.h"

#include <stdlib.h>
#include <string.h>

static const choice preferences[] = { { "latency", RUNG_PREFER_LATENCY },
                                      { "size", RUNG_PREFER_SIZE }, { NULL, 0 } };

/* What a call comes to. */
typedef struct call {
    rung_quant_options quant;
    rung_train_options train;
    rung_tune_options  tune;
    char              *work; /* freed by run */
} call;

static int check_given(const options *o)
{
    if (!o->output)
        return misused(&cmd_tune, "-o FILE is missing: where the recommended model goes");
    if (!o->data)
        return misused(&cmd_tune, "--data is missing: samples to calibrate and to train on");
    if (!o->eval)
        return misused(&cmd_tune, "--eval is missing: the samples that --max-drop is held against");
    if (o->max_drop < 0)
        return misused(&cmd_tune, "--max-drop is missing: the points of accuracy on --eval that "
                       "may be lost");
    if (o->no_train && (o->train.epochs > 0 || o->train.lr > 0 || o->train.augment || o->batch))
        return misused(&cmd_tune, "--no-train does not go with options of training");
    return EXIT_GOOD;
}

/* Beside the model, unless a folder is named. */
static char *work_folder(const options *o)
{
    static const char ending[] = ".tune";
    const char *name = o->work ? o->work : o->output;
    char *folder = malloc(strlen(name) + sizeof ending);
    if (folder) {
        strcpy(folder, name);
        strcat(folder, o->work ? "" : ending);
    }
    return folder;
}

static int take_options(const options *o, call *c)
{
    int prefer = RUNG_PREFER_LATENCY, status = check_given(o);
    if (status != EXIT_GOOD ||
        (status = quantization_options(&cmd_tune, o, &c->quant)) != EXIT_GOOD)
        return status;
    if (!lookup(preferences, o->prefer, &prefer))
        return misused(&cmd_tune, "--prefer '%s': latency or size is wanted", o->prefer);
    c->quant.batch = 0; /* --batch is of a step of training */
    c->train = (rung_train_options){
        .size = sizeof c->train, .augment = o->train.augment, .batch = (size_t)o->batch,
        .epochs = o->train.epochs > 0 ? (size_t)o->train.epochs : 0,
        .rate = o->train.lr > 0 ? o->train.lr : 0, .seed = (uint64_t)o->seed,
        .n_threads = (int)o->threads,
    };
    c->work = work_folder(o);
    if (!c->work) {
        fprintf(stderr, "rung tune: out of memory\n");
        return EXIT_FAILED;
    }
    c->tune = (rung_tune_options){
        .size = sizeof c->tune, .max_drop = o->max_drop, .time_budget = o->time_budget,
        .prefer = (rung_prefer)prefer, .no_train = o->no_train, .work = c->work,
        .quant = &c->quant, .train = &c->train, .model_title = o->model, .data_title = o->data,
        .eval_title = o->eval, .quiet = o->quiet,
        .min_share = o->min_share < 0 ? 0 : o->min_share > 0 ? o->min_share : -1,
    };
    return EXIT_GOOD;
}

static rung_status open_data(const options *o, const char *spec, const rung_model *model,
                             rung_dataset **data, rung_error *err)
{
    const rung_status st = rung_dataset_open(spec, o->preprocess, model, (int)o->threads, data,
                                             err);
    if (st == RUNG_OK && rung_dataset_is_random(*data))
        fprintf(stderr, "remark: random-data: sizes and speed are right, accuracy is not\n");
    return st;
}

/* The table, or the object; the status says whether the drop is kept. */
static int report(const options *o, const rung_tuning *tuning)
{
    char *text = NULL;
    rung_error err;
    if ((o->html && rung_tuning_save_html(tuning, o->html, &err) != RUNG_OK) ||
        rung_tuning_text(tuning, o->json, &text, &err) != RUNG_OK)
        return failed(&cmd_tune, &err);
    fputs(text, stdout);
    rung_text_free(text);
    const int status = finish(&cmd_tune);
    if (status != EXIT_GOOD || rung_tuning_met(tuning))
        return status;
    fprintf(stderr, "rung tune: --max-drop %g is not kept: %s is the best that was found\n",
            o->max_drop, o->output);
    return EXIT_BUDGET;
}

static int tune(const options *o, const call *c)
{
    rung_model *model = NULL, *out = NULL;
    rung_dataset *data = NULL, *eval = NULL;
    rung_tuning *tuning = NULL;
    rung_error err;
    int status;
    if (rung_model_load(o->model, &model, &err) != RUNG_OK ||
        open_data(o, o->data, model, &data, &err) != RUNG_OK ||
        open_data(o, o->eval, model, &eval, &err) != RUNG_OK ||
        rung_tune(model, data, eval, &c->tune, &out, &tuning, &err) != RUNG_OK ||
        rung_model_save(out, o->output, &err) != RUNG_OK)
        status = failed(&cmd_tune, &err);
    else
        status = report(o, tuning);
    rung_tuning_free(tuning);
    rung_dataset_free(eval);
    rung_dataset_free(data);
    rung_model_free(out);
    rung_model_free(model);
    return status;
}

static int run(int argc, char **argv)
{
    options o;
    call c = { 0 };
    int status = options_parse(&cmd_tune, argc, argv,
                               "output data eval max-drop min-share time-budget prefer no-train "
                               "work html epochs batch lr augment range percentile act-type "
                               "act-symmetric weight-scheme qconfig pairs act-bits reduce-range "
                               "weight-bits exclude ops samples seed threads preprocess json "
                               "quiet", &o);
    if (status == EXIT_GOOD && !o.help && (status = take_options(&o, &c)) == EXIT_GOOD)
        status = tune(&o, &c);
    free(c.work);
    options_free(&o);
    return status;
}

const command cmd_tune = {
    "tune", "the whole decision: PTQ from cheap to dear, then QAT, until accuracy is kept",
    "Usage: rung tune MODEL -o OUT --data D --eval D --max-drop P [options]\n\n"
    "Tries, measures and recommends: dynamic and weight-only quantization, static quantization\n"
    "from cheap to dear (rounding to the nearest, auto, learned rounding), the layers to blame in\n"
    "float, then quantization-aware training, until accuracy on --eval (top-1 with labels, else\n"
    "agreement with the float model) drops by at most P points. One table says what each trial\n"
    "costs and brings: accuracy, bytes, latency on this machine (in turns with float), time.\n"
    "OUT is the model that is recommended, or with exit status 3 the best that was found.\n\n"
    "  -o, --output FILE      the recommended model\n"
    "  --data D               samples to calibrate and to train on: FORMAT:PATH[,PATH][@A:B]\n"
    "                         as in 'rung quantize --help'\n"
    "  --eval D               samples to decide by; keep others to judge the result with\n"
    "  --max-drop P           points that may be lost\n"
    "  --min-share P          percent of the work that 'static' has in the integers asked for,\n"
    "                         which a model with layers in float or 16 bits must keep to be\n"
    "                         recommended, default 50: with less it is a row to compare with, and\n"
    "                         training is tried; 0: any will do\n"
    "  --time-budget S        seconds of all trials: what has begun is ended, training has as\n"
    "                         many epochs as fit; default none\n"
    "  --prefer P             latency (default) or size: which of the trials that keep the drop\n"
    "  --no-train             post-training quantization only\n"
    "  --work DIR             trials are kept there, a record and a model each, and used again:\n"
    "                         an interrupted tune goes on. Default OUT.tune\n"
    "  --html FILE            one page: both families side by side, every trial, a chart\n"
    "  --json                 one object on standard output; docs/cli.md lists its keys\n"
    "\nHow it is quantized, as in 'rung quantize --help' (methods are chosen here):\n"
    "  --weight-bits --act-bits --act-type --act-symmetric --reduce-range --weight-scheme\n"
    "  --qconfig --range --percentile --pairs --exclude --ops\n"
    "  --samples N            to calibrate on, default 500\n"
    "\nOf training, as in 'rung train --help':\n"
    "  --epochs N             of the shorter training, default 10; a longer one has three times\n"
    "                         as many and is tried where that is not enough\n"
    "  --batch --lr --augment\n"
    "\n"
    "  --seed N               default 0\n"
    "  --threads N            default: all processors\n"
    "  --preprocess TEXT      default: the one stored in MODEL\n"
    "  --quiet                no progress\n\n"
    "Examples:\n"
    "  rung tune net.onnx -o net_int8.onnx --data images:train --eval images:val --max-drop 0.5\n"
    "  rung tune net.onnx -o net_w4.onnx --data npz:train.npz --eval npz:val.npz --max-drop 1 \\\n"
    "      --weight-bits 4 --act-bits 4 --epochs 20 --time-budget 3600 --html tune.html\n",
    run,
};

#include "cli.h"

static int run(int argc, char **argv)
{
    options o;
    rung_model *model = NULL;
    rung_error err;
    char *text = NULL;
    int status = options_parse(&cmd_inspect, argc, argv, "json", &o);
    if (status != EXIT_GOOD || o.help)
        goto done;
    if (rung_model_load(o.model, &model, &err) != RUNG_OK ||
        rung_model_inspect(model, o.json, &text, &err) != RUNG_OK) {
        status = failed(&cmd_inspect, &err);
        goto done;
    }
    fputs(text, stdout);
    status = finish(&cmd_inspect);
done:
    rung_text_free(text);
    rung_model_free(model);
    options_free(&o);
    return status;
}

const command cmd_inspect = {
    "inspect",
    "what a model is: operators, parameters, integer share, float islands",
    "Usage: rung inspect MODEL [--json]\n\n"
    "Prints the graph's inputs, outputs, operators and parameters, how much of its work runs in\n"
    "integers, and the nodes that stay in float between quantized ones, each with the reason.\n\n"
    "  --json   one JSON object: graph, opset, inputs, outputs, nodes, ops, parameters, bytes,\n"
    "           metadata, macs, int_macs_share, float_islands, diagnostics\n\n"
    "Examples:\n"
    "  rung inspect model.onnx\n"
    "  rung inspect model_int8.onnx --json\n",
    run,
};

/* Ours as a backend of ggml: the interface by which BLAS libraries take products over from the CPU's backend
(ggml-backend-impl.h, version 2 of it). llama.cpp gives it the nodes that it says it can compute; everything else stays
where it is. */

#include "backend.h"

enum { MOST = 8 /* products that are begun together */ };

Ggml ggml;

bool reserve(Context *context, size_t size) {
    if (size <= context->size) return true;
    free(context->memory);
    context->size = 0;
    context->memory = (char *)aligned_alloc(64, rounded(size + size / 4, 64));
    if (!context->memory) return false;
    context->size = size + size / 4;
    return true;
}

static const char *backend_name(Backend *) { return "ingle"; }

static void backend_free(Backend *backend) {
    Context *context = (Context *)backend->context;
    free(context->memory);
    delete context;
    delete backend;
}

/* The nodes of a graph, from that one on, that are products of the same rows. Others are views, and no work. */
static long products_from(void *graph, int32_t *number, const Tensor *found[MOST]) {
    long count = 0;
    for (int32_t all = ggml.node_count(graph); *number < all && count < MOST; ++*number) {
        const Tensor *node = ggml.node(graph, *number);
        if (node->op == ggml.attention) break;
        if (node->op != ggml.product) continue;
        if (count && node->src[1] != found[0]->src[1]) break;
        found[count++] = node;
    }
    return count;
}

static int32_t backend_compute(Backend *backend, void *graph) {
    Context *context = (Context *)backend->context;
    for (int32_t number = 0, status; number < ggml.node_count(graph);) {
        const Tensor *node = ggml.node(graph, number), *products[MOST];
        if (node->op == ggml.attention) {
            number++;
            status = attention_compute(context, node);
        } else {
            long count = products_from(graph, &number, products);
            status = count ? products_compute(context, products, count) : SUCCESS;
        }
        if (status != SUCCESS) return status;
    }
    return SUCCESS;
}

static void set_threads(Backend *backend, int32_t threads) {
    ((Context *)backend->context)->threads = threads > 0 ? threads : 1;
}

static void set_abort(Backend *backend, Asks aborts, void *about) {
    ((Context *)backend->context)->aborts = aborts;
    ((Context *)backend->context)->about = about;
}

static const char *device_name(Device *) { return "ingle"; }

static const char *device_description(Device *) { return "attention, and products with quantized weights"; }

static void device_memory(Device *, size_t *free, size_t *total) { *free = *total = 0; }

static int32_t device_type(Device *) { return 3; /* GGML_BACKEND_DEVICE_TYPE_ACCEL */ }

static void device_props(Device *device, Props *props) {
    *props = {device_name(device), device_description(device), 0, 0, device_type(device), 0, {}};
}

static Backend *device_backend(Device *device, const char *) {
    static uint8_t guid[16] = {0x69, 0x6e, 0x67, 0x6c, 0x65, 0x2d, 0x61, 0x74,
                               0x74, 0x65, 0x6e, 0x74, 0x69, 0x6f, 0x6e, 0x31};
    Backend *backend = new Backend();
    backend->guid = guid;
    backend->get_name = backend_name;
    backend->free = backend_free;
    backend->graph_compute = backend_compute;
    backend->device = device;
    backend->context = new Context{1, 0, 0, 0, 0};
    return backend;
}

static void *device_buffers(Device *) { return ggml.cpu_buffer_type(); }

static bool device_reads(Device *, void *buffers) { return ggml.is_host(buffers) || buffers == ggml.repacked; }

static bool device_computes(Device *, const Tensor *node) {
    return attention_computes(node) || products_compute_this(node);
}

static Registry registry;

static Device device = {device_name,    device_description, device_memory, device_type,     device_props,
                        device_backend, device_buffers,     0,             0,               device_computes,
                        device_reads,   0,                  0,             0,               0,
                        &registry,      0};

static const char *registry_name(Registry *) { return "ingle"; }

static size_t registry_devices(Registry *) { return 1; }

static Device *registry_device(Registry *, size_t) { return &device; }

static void *registry_function(Registry *, const char *name) {
    if (!strcmp(name, "ggml_backend_set_n_threads")) return (void *)set_threads;
    if (!strcmp(name, "ggml_backend_set_abort_callback")) return (void *)set_abort;
    return 0;
}

/* What the installed ggml has. To be called first. */
PUBLIC void backend_begin(const Ggml *installed) { ggml = *installed; }

/* Called by ggml_backend_load. */
PUBLIC Registry *ggml_backend_init() {
    registry = {2, registry_name, registry_devices, registry_device, registry_function, 0};
    return &registry;
}

/* One node, as it is; its ggml_status, or -1 where it is none of ours. For tests. */
PUBLIC int32_t backend_compute_node(const Tensor *node, int32_t threads, Asks aborts) {
    Context context = {threads, 0, 0, aborts, 0};
    int32_t status = -1;
    if (attention_computes(node)) status = attention_compute(&context, node);
    else if (products_compute_this(node)) status = products_compute(&context, &node, 1);
    free(context.memory);
    return status;
}

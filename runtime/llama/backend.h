/* What ggml.h and ggml-backend-impl.h (version 2 of the interface) declare, and what backend.cpp, attention.cpp and
products.cpp know of each other. */

#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

#define ALWAYS static inline __attribute__((always_inline))
#define ALWAYS_IN inline __attribute__((always_inline))
#define PUBLIC extern "C" __attribute__((visibility("default")))

typedef uint16_t f16;

enum { F32 = 0, F16 = 1, Q4_0 = 2, Q5_0 = 6, Q8_0 = 8, Q4_K = 12, Q5_K = 13, Q6_K = 14 }; /* ggml_type */

enum { ALLOC_FAILED = -2, SUCCESS = 0, ABORTED = 1 }; /* ggml_status */

struct Tensor {
    int32_t type;
    void *buffer;
    int64_t ne[4];
    size_t nb[4];
    int32_t op;
    int32_t params[16];
    int32_t flags;
    Tensor *src[10];
    Tensor *view_src;
    size_t view_offs;
    char *data;
};

struct Registry;
struct Device;
struct Backend;

struct Registry {
    int32_t api_version;
    const char *(*get_name)(Registry *);
    size_t (*get_device_count)(Registry *);
    Device *(*get_device)(Registry *, size_t);
    void *(*get_proc_address)(Registry *, const char *);
    void *context;
};

struct Props {
    const char *name, *description;
    size_t memory_free, memory_total;
    int32_t type;
    const char *device_id;
    bool caps[5];
};

struct Device {
    const char *(*get_name)(Device *);
    const char *(*get_description)(Device *);
    void (*get_memory)(Device *, size_t *, size_t *);
    int32_t (*get_type)(Device *);
    void (*get_props)(Device *, Props *);
    Backend *(*init_backend)(Device *, const char *);
    void *(*get_buffer_type)(Device *);
    void *get_host_buffer_type, *buffer_from_host_ptr;
    bool (*supports_op)(Device *, const Tensor *);
    bool (*supports_buft)(Device *, void *);
    void *offload_op, *event_new, *event_free, *event_synchronize;
    Registry *registry;
    void *context;
};

struct Backend {
    void *guid;
    const char *(*get_name)(Backend *);
    void (*free)(Backend *);
    void *transfers[5], *synchronize, *plans[4];
    int32_t (*graph_compute)(Backend *, void *);
    void *events[2], *graph_optimize;
    Device *device;
    void *context;
};

/* Functions of the installed ggml; the buffers that it repacks weights in, where we know how (see products_agree); the
numbers that the nodes have there. */
struct Ggml {
    void *(*cpu_buffer_type)();
    bool (*is_host)(void *);
    void *(*type_of)(void *);
    int32_t (*node_count)(void *);
    Tensor *(*node)(void *, int32_t);
    void *repacked;
    int32_t attention, product;
};

extern Ggml ggml;

typedef bool (*Asks)(void *);

/* Of a backend. memory: for whatever is computed at the time. aborts: asked between tasks whether to go on. */
struct Context {
    int32_t threads;
    char *memory;
    size_t size;
    Asks aborts;
    void *about;
};

ALWAYS long less(long a, long b) { return a < b ? a : b; }

ALWAYS long rounded(long count, long to) { return (count + to - 1) / to * to; }

/* Room for so many bytes at context->memory; false where there is none. */
bool reserve(Context *context, size_t size);

/* Whether a node is one of ours, and its ggml_status. */
bool attention_computes(const Tensor *node);
int32_t attention_compute(Context *context, const Tensor *node);

/* The same for products, of which `count` have the same rows. */
bool products_compute_this(const Tensor *node);
int32_t products_compute(Context *context, const Tensor *const *nodes, long count);

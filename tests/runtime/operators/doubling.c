/* A library of one custom operator, com.example.Double, which gives twice what it takes.

   What it needs of onnxruntime_c_api.h stands here: functions of OrtApi by their place in the table, which
   never changes, and OrtCustomOp as of version 8. */
#include <stddef.h>
#include <stdint.h>

typedef const void *const *Api;
#define CALL(api, place, type) ((const void *(*)type)(api)[place])

enum { CREATE_DOMAIN = 26, ADD_TO_DOMAIN = 27, ADD_DOMAIN = 28 };
enum { DATA = 51, DIMENSIONS_COUNT = 61, DIMENSIONS = 62, ELEMENTS = 64, SHAPE = 65, INPUT = 90, OUTPUT = 91 };
enum { RELEASE_SHAPE = 99, FLOAT = 1 };

typedef struct Operator {
  uint32_t version;
  void *(*create)(const struct Operator *, Api, const void *);
  const char *(*name)(const struct Operator *);
  const char *(*provider)(const struct Operator *);
  int (*input_type)(const struct Operator *, size_t);
  size_t (*inputs)(const struct Operator *);
  int (*output_type)(const struct Operator *, size_t);
  size_t (*outputs)(const struct Operator *);
  void (*compute)(void *, void *);
  void (*destroy)(void *);
  int (*input)(const struct Operator *, size_t);
  int (*output)(const struct Operator *, size_t);
  void *later[32]; /* what later versions have, all of it optional */
} Operator;

static void *create(const Operator *own, Api api, const void *info) { return (void *)api; }
static const char *name(const Operator *own) { return "Double"; }
static const char *provider(const Operator *own) { return NULL; }
static int type(const Operator *own, size_t index) { return FLOAT; }
static size_t one(const Operator *own) { return 1; }
static int required(const Operator *own, size_t index) { return 0; }
static void destroy(void *kernel) {}

static void compute(void *kernel, void *context) {
  Api api = kernel;
  const void *input;
  void *output, *shape;
  float *from, *to;
  size_t rank, elements;
  int64_t sizes[8];
  CALL(api, INPUT, (void *, size_t, const void **))(context, 0, &input);
  CALL(api, SHAPE, (const void *, void **))(input, &shape);
  CALL(api, DIMENSIONS_COUNT, (void *, size_t *))(shape, &rank);
  CALL(api, DIMENSIONS, (void *, int64_t *, size_t))(shape, sizes, rank);
  CALL(api, ELEMENTS, (void *, size_t *))(shape, &elements);
  ((void (*)(void *))api[RELEASE_SHAPE])(shape);
  CALL(api, OUTPUT, (void *, size_t, const int64_t *, size_t, void **))(context, 0, sizes, rank, &output);
  CALL(api, DATA, (const void *, void **))(input, (void **)&from);
  CALL(api, DATA, (void *, void **))(output, (void **)&to);
  for (size_t i = 0; i < elements; i++) to[i] = 2 * from[i];
}

static const Operator DOUBLE = {8, create, name, provider, type, one, type, one, compute, destroy, required, required};

const void *RegisterCustomOps(void *options, const void *base) {
  Api api = ((Api (*)(uint32_t))((Api)base)[0])(8);
  void *domain;
  const void *status = CALL(api, CREATE_DOMAIN, (const char *, void **))("com.example", &domain);
  if (!status) status = CALL(api, ADD_TO_DOMAIN, (void *, const Operator *))(domain, &DOUBLE);
  if (!status) status = CALL(api, ADD_DOMAIN, (void *, void *))(options, domain);
  return status;
}

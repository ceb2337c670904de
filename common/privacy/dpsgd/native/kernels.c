/* Float32 kernels for book-keeping DP-SGD; all tensors channels last, (N, H, W, C) in memory. Called by kernels.py.

   Each function works on examples first .. last - 1 only, so that a caller may split a batch among threads.
   Accumulators of per-channel sums run along the channels: no reordering of float sums is needed for vector code. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* The arrays of a loop do not overlap: compilers cannot tell. */
#ifdef __clang__
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

/* ---- GroupNorm with the activation behind it ---- */

enum { IDENTITY = 0, RELU = 1, RELU6 = 2, HARDSWISH = 3 };

/* Comparisons are written so that NaN stays NaN. */
static inline float activate(float z, int kind) {
  float t;
  switch (kind) {
    case RELU: return z < 0 ? 0 : z;
    case RELU6: t = z < 0 ? 0 : z; return t > 6 ? 6 : t;
    case HARDSWISH: t = z + 3.f; t = t < 0 ? 0 : t; t = t > 6 ? 6 : t; return z * t * (1.f / 6);
    default: return z;
  }
}

static inline float slope(float z, int kind) {
  float t;
  switch (kind) {
    case RELU: return z <= 0 ? 0.f : 1.f;
    case RELU6: return (z <= 0 || z >= 6) ? 0.f : 1.f;
    case HARDSWISH: t = z * (1.f / 3) + 0.5f; t = z >= 3 ? 1.f : t; return z <= -3 ? 0.f : t;
    default: return 1.f;
  }
}

static size_t padded(size_t count) { return (count + 15) / 16 * 16; }

static float *scratch(size_t floats) { return aligned_alloc(64, sizeof(float) * padded(floats)); }

/* Sum of a * b in double precision, in eight interleaved parts. */
static inline double inner(const float *a, const float *b, int count) {
  double part[8] = {0}, sum = 0;
  int i = 0;
  for (; i + 8 <= count; i += 8)
    for (int j = 0; j < 8; j++) part[j] += (double)a[i + j] * b[i + j];
  for (; i < count; i++) sum += (double)a[i] * b[i];
  return sum + ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
}

static inline double total(const float *a, int count) {
  double part[8] = {0}, sum = 0;
  int i = 0;
  for (; i + 8 <= count; i += 8)
    for (int j = 0; j < 8; j++) part[j] += a[i + j];
  for (; i < count; i++) sum += a[i];
  return sum + ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
}

/* y = act(gamma (x - mean) deviation + beta); mean and deviation (1 / standard deviation) are (N, groups). */
static inline int norm_forward(const float *x, const float *gamma, const float *beta, float *y, float *mean, float *deviation,
                               int first, int last, int places, int channels, int groups, float eps, const int kind) {
  const size_t row = channels, width = padded(channels);
  const int each = channels / groups;
  float *room = scratch(4 * width);
  if (!room) return 1;
  float *restrict sum = room, *restrict square = room + width, *restrict a = room + 2 * width, *restrict b = room + 3 * width;
  for (int n = first; n < last; n++) {
    const float *from = x + (size_t)n * places * row;
    float *to = y + (size_t)n * places * row;
    memset(sum, 0, sizeof(float) * row);
    memset(square, 0, sizeof(float) * row);
    int t = 0;
    for (; t + 8 <= places; t += 8) {
      const float *p = from + t * row, *q = p + 4 * row;
      INDEPENDENT
      for (int c = 0; c < channels; c++) {
        float u = p[c], v = p[row + c], w = p[2 * row + c], z = p[3 * row + c];
        float i = q[c], j = q[row + c], k = q[2 * row + c], l = q[3 * row + c];
        sum[c] += ((u + v) + (w + z)) + ((i + j) + (k + l));
        square[c] += ((u * u + v * v) + (w * w + z * z)) + ((i * i + j * j) + (k * k + l * l));
      }
    }
    for (; t < places; t++) {
      const float *p = from + t * row;
      INDEPENDENT
      for (int c = 0; c < channels; c++) { sum[c] += p[c]; square[c] += p[c] * p[c]; }
    }
    for (int g = 0; g < groups; g++) {
      double count = (double)each * places, m = total(sum + g * each, each) / count;
      double variance = total(square + g * each, each) / count - m * m;
      if (variance < 1e-3 * m * m) { /* Cancellation: once more, around the mean. */
        variance = 0;
        for (int p = 0; p < places; p++)
          for (int c = g * each; c < (g + 1) * each; c++) { double d = from[p * row + c] - m; variance += d * d; }
        variance /= count;
      }
      double r = 1 / sqrt(variance + eps);
      mean[(size_t)n * groups + g] = (float)m;
      deviation[(size_t)n * groups + g] = (float)r;
      for (int c = g * each; c < (g + 1) * each; c++) { a[c] = gamma[c] * (float)r; b[c] = (float)(beta[c] - m * a[c]); }
    }
    for (t = 0; t < places; t++) {
      const float *restrict p = from + t * row;
      float *restrict o = to + t * row;
      INDEPENDENT
      for (int c = 0; c < channels; c++) o[c] = activate(a[c] * p[c] + b[c], kind);
    }
  }
  free(room);
  return 0;
}

/* back: gradient by x. scale, shift: (N, C) gradients by gamma and beta, per example. */
static inline int norm_backward(const float *above, const float *x, const float *gamma, const float *beta, const float *mean,
                                const float *deviation, float *back, float *scale, float *shift, int first, int last, int places,
                                int channels, int groups, const int kind) {
  const size_t row = channels, width = padded(channels);
  const int each = channels / groups;
  float *room = scratch(4 * width);
  if (!room) return 1;
  float *restrict a = room, *restrict b = room + width, *restrict k = room + 2 * width, *restrict l = room + 3 * width;
  for (int n = first; n < last; n++) {
    const float *from = x + (size_t)n * places * row, *grads = above + (size_t)n * places * row;
    const float *m = mean + (size_t)n * groups, *r = deviation + (size_t)n * groups;
    float *to = back + (size_t)n * places * row;
    float *restrict by_scale = scale + n * row, *restrict by_shift = shift + n * row;
    memset(by_scale, 0, sizeof(float) * row);
    memset(by_shift, 0, sizeof(float) * row);
    for (int g = 0; g < groups; g++)
      for (int c = g * each; c < (g + 1) * each; c++) { a[c] = gamma[c] * r[g]; b[c] = beta[c] - m[g] * a[c]; }
    int t = 0;
    for (; t + 4 <= places; t += 4) {
      const float *restrict p = from + t * row, *restrict h = grads + t * row;
      float *restrict o = to + t * row;
      INDEPENDENT
      for (int c = 0; c < channels; c++) {
        float u = p[c], v = p[row + c], w = p[2 * row + c], z = p[3 * row + c], s = a[c], d = b[c];
        float g0 = h[c] * slope(s * u + d, kind), g1 = h[row + c] * slope(s * v + d, kind);
        float g2 = h[2 * row + c] * slope(s * w + d, kind), g3 = h[3 * row + c] * slope(s * z + d, kind);
        o[c] = g0; o[row + c] = g1; o[2 * row + c] = g2; o[3 * row + c] = g3;
        by_shift[c] += (g0 + g1) + (g2 + g3);
        by_scale[c] += (g0 * u + g1 * v) + (g2 * w + g3 * z);
      }
    }
    for (; t < places; t++) {
      const float *restrict p = from + t * row, *restrict h = grads + t * row;
      float *restrict o = to + t * row;
      INDEPENDENT
      for (int c = 0; c < channels; c++) {
        float g0 = h[c] * slope(a[c] * p[c] + b[c], kind);
        o[c] = g0;
        by_shift[c] += g0;
        by_scale[c] += g0 * p[c];
      }
    }
    for (int g = 0; g < groups; g++) {
      double part = 1 / ((double)each * places);
      double s = inner(gamma + g * each, by_scale + g * each, each), q = inner(gamma + g * each, by_shift + g * each, each);
      double by_x = (q * m[g] - s) * r[g] * r[g] * r[g] * part, rest = -by_x * m[g] - q * r[g] * part;
      for (int c = g * each; c < (g + 1) * each; c++) {
        k[c] = (float)by_x;
        l[c] = (float)rest;
        by_scale[c] = (by_scale[c] - by_shift[c] * m[g]) * r[g];
      }
    }
    for (t = 0; t < places; t++) {
      const float *restrict p = from + t * row;
      float *restrict o = to + t * row;
      INDEPENDENT
      for (int c = 0; c < channels; c++) o[c] = a[c] * o[c] + k[c] * p[c] + l[c];
    }
  }
  free(room);
  return 0;
}

int emofl_norm_forward(const float *x, const float *gamma, const float *beta, float *y, float *mean, float *deviation, int first,
                       int last, int places, int channels, int groups, float eps, int kind) {
#define GO(KIND) return norm_forward(x, gamma, beta, y, mean, deviation, first, last, places, channels, groups, eps, KIND)
  switch (kind) { case RELU: GO(RELU); case RELU6: GO(RELU6); case HARDSWISH: GO(HARDSWISH); default: GO(IDENTITY); }
#undef GO
}

int emofl_norm_backward(const float *above, const float *x, const float *gamma, const float *beta, const float *mean,
                        const float *deviation, float *back, float *scale, float *shift, int first, int last, int places,
                        int channels, int groups, int kind) {
#define GO(KIND) \
  return norm_backward(above, x, gamma, beta, mean, deviation, back, scale, shift, first, last, places, channels, groups, KIND)
  switch (kind) { case RELU: GO(RELU); case RELU6: GO(RELU6); case HARDSWISH: GO(HARDSWISH); default: GO(IDENTITY); }
#undef GO
}

/* ---- Squeeze-and-excitation: y = x * scale, scale (N, C) ---- */

int emofl_excite_backward(const float *above, const float *x, const float *scale, float *back, float *by_scale, int first, int last,
                          int places, int channels) {
  for (int n = first; n < last; n++) {
    const float *restrict s = scale + (size_t)n * channels;
    float *restrict sum = by_scale + (size_t)n * channels;
    memset(sum, 0, sizeof(float) * channels);
    for (int t = 0; t < places; t++) {
      const size_t at = ((size_t)n * places + t) * channels;
      const float *restrict g = above + at, *restrict p = x + at;
      float *restrict o = back + at;
      INDEPENDENT
      for (int c = 0; c < channels; c++) { sum[c] += g[c] * p[c]; o[c] = g[c] * s[c]; }
    }
  }
  return 0;
}

/* ---- Depthwise convolution, 3x3 or 5x5, channels a multiple of 8 ----

   A vector's worth of an example's channels at a time is copied into a zero-padded picture: it stays in the nearest cache, and the
   loops have no borders. All taps of the kernel stay in registers. */

typedef float wide __attribute__((vector_size(64), aligned(4), may_alias));
typedef float narrow __attribute__((vector_size(32), aligned(4), may_alias));

typedef struct { int height, width, channels, tall, broad, stride, padding, kernel; } Shape; /* tall, broad: of the output */

static int padded_height(Shape s) { int h = (s.tall - 1) * s.stride + s.kernel; return h > s.height + s.padding ? h : s.height + s.padding; }
static int padded_width(Shape s) { int w = (s.broad - 1) * s.stride + s.kernel; return w > s.width + s.padding ? w : s.width + s.padding; }

#define UNROLL _Pragma("GCC unroll 8")
#define TAPS(K) UNROLL for (int i = 0; i < K; i++) UNROLL for (int j = 0; j < K; j++)
#define AT(V, pointer) (*(V *)(pointer))
#define OF(V, pointer) (*(const V *)(pointer))

/* One example, channels c .. c + L of the vector type V. */
#define PLACES for (int r = 0; r < s.tall; r++) for (int o = 0; o < s.broad; o++)
#define INSIDE for (int h = 0; h < s.height; h++) for (int w = 0; w < s.width; w++)
#define SEEN(rows, L) ((rows) + ((size_t)r * line + o) * s.stride * L)
#define TAP(p, i, j, L) ((p) + ((size_t)(i) * line + (j)) * L)
#define PADDED(rows, L) ((rows) + ((size_t)(h + s.padding) * line + w + s.padding) * L)
#define READ(V, L) INSIDE AT(V, PADDED(picture, L)) = OF(V, x + n * inside + ((size_t)h * s.width + w) * C + c);
#define FORWARD(V, K, L) { \
  V tap[K * K]; TAPS(K) tap[i * K + j] = OF(V, weight + (size_t)(i * K + j) * C + c); \
  READ(V, L) \
  PLACES { \
    const float *p = SEEN(picture, L); V even = {0}, odd = {0}; \
    TAPS(K) { if ((i * K + j) & 1) odd += tap[i * K + j] * OF(V, TAP(p, i, j, L)); \
              else even += tap[i * K + j] * OF(V, TAP(p, i, j, L)); } \
    AT(V, out + ((size_t)r * s.broad + o) * C + c) = even + odd; } }
#define BY_WEIGHT(V, K, L) { \
  V sum[K * K]; TAPS(K) sum[i * K + j] = (V){0}; \
  READ(V, L) \
  PLACES { \
    V g = OF(V, grads + ((size_t)r * s.broad + o) * C + c); const float *p = SEEN(picture, L); \
    TAPS(K) sum[i * K + j] += g * OF(V, TAP(p, i, j, L)); } \
  TAPS(K) AT(V, found + (size_t)(i * K + j) * C + c) = sum[i * K + j]; }
#define BY_INPUT(V, K, L) { \
  V tap[K * K]; TAPS(K) tap[i * K + j] = OF(V, weight + (size_t)(i * K + j) * C + c); \
  memset(pad, 0, sizeof(float) * size * L); \
  PLACES { \
    V g = OF(V, grads + ((size_t)r * s.broad + o) * C + c); float *p = SEEN(pad, L); \
    TAPS(K) AT(V, TAP(p, i, j, L)) += g * tap[i * K + j]; } \
  INSIDE AT(V, back + n * inside + ((size_t)h * s.width + w) * C + c) = OF(V, PADDED(pad, L)); }
#define CHANNELS(WORK, K) { \
  int c = 0; for (; c + 16 <= s.channels; c += 16) WORK(wide, K, 16) \
  if (c < s.channels) { memset(picture, 0, sizeof(float) * size * 8); for (; c < s.channels; c += 8) WORK(narrow, K, 8) \
                        memset(picture, 0, sizeof(float) * size * 16); } }

#define DEPTHWISE(K) \
static int forward_##K(const float *x, const float *weight, float *y, int first, int last, Shape s) { \
  const size_t C = s.channels, line = padded_width(s), inside = (size_t)s.height * s.width * C, size = line * padded_height(s); \
  float *picture = scratch(16 * size); \
  if (!picture) return 1; \
  memset(picture, 0, sizeof(float) * 16 * size); \
  for (int n = first; n < last; n++) { \
    float *out = y + (size_t)n * s.tall * s.broad * C; \
    CHANNELS(FORWARD, K) } \
  free(picture); return 0; } \
static int backward_##K(const float *x, const float *gradient, const float *weight, float *back, float *by_weight, int first, \
                        int last, Shape s) { \
  const size_t C = s.channels, line = padded_width(s), inside = (size_t)s.height * s.width * C, size = line * padded_height(s); \
  float *picture = scratch(32 * size), *pad = picture + 16 * size; \
  if (!picture) return 1; \
  memset(picture, 0, sizeof(float) * 16 * size); \
  for (int n = first; n < last; n++) { \
    const float *grads = gradient + (size_t)n * s.tall * s.broad * C; \
    if (by_weight) { float *found = by_weight + (size_t)n * K * K * C; CHANNELS(BY_WEIGHT, K) } \
    if (back) CHANNELS(BY_INPUT, K) } \
  free(picture); return 0; }

DEPTHWISE(3)
DEPTHWISE(5)

/* weight: (K, K, C). */
int emofl_depthwise_forward(const float *x, const float *weight, float *y, int first, int last, int height, int width, int channels,
                            int tall, int broad, int kernel, int stride, int padding) {
  Shape s = {height, width, channels, tall, broad, stride, padding, kernel};
  return kernel == 3 ? forward_3(x, weight, y, first, last, s) : forward_5(x, weight, y, first, last, s);
}

/* back (N, H, W, C) and by_weight (N, K, K, C), each may be null. */
int emofl_depthwise_backward(const float *x, const float *gradient, const float *weight, float *back, float *by_weight, int first,
                             int last, int height, int width, int channels, int tall, int broad, int kernel, int stride,
                             int padding) {
  Shape s = {height, width, channels, tall, broad, stride, padding, kernel};
  return kernel == 3 ? backward_3(x, gradient, weight, back, by_weight, first, last, s)
                     : backward_5(x, gradient, weight, back, by_weight, first, last, s);
}

/* ---- Gaussian noise ---- */

/* Natural logarithm of a normal positive float; coefficients of Cephes (Moshier), logf. */
static inline float logarithm(float x) {
  union { float f; uint32_t i; } u = {x};
  int32_t e = (int32_t)(u.i >> 23) - 127;
  u.i = (u.i & 0x7fffff) | 0x3f800000;
  int32_t large = u.f > 1.41421356f;
  float t = (large ? u.f * 0.5f : u.f) - 1.f, power = (float)(e + large), z = t * t;
  float p = 7.0376836292e-2f;
  p = p * t - 1.1514610310e-1f; p = p * t + 1.1676998740e-1f; p = p * t - 1.2420140846e-1f; p = p * t + 1.4249322787e-1f;
  p = p * t - 1.6668057665e-1f; p = p * t + 2.0000714765e-1f; p = p * t - 2.4999993993e-1f; p = p * t + 3.3333331174e-1f;
  return t + (t * z * p - 0.5f * z + power * -2.12194440e-4f) + power * 0.693359375f;
}

/* Adds one Box-Muller draw to cosines and sines, (count,) each: radius from a 32-bit word, angle from a 16-bit one.
   Sine and cosine on [-pi/4, pi/4] by Cephes' polynomials, quadrants by whole numbers. */
void emofl_box_muller(const int32_t *restrict words, const int16_t *restrict halves, float *restrict cosines,
                      float *restrict sines, int count) {
  INDEPENDENT
  for (int i = 0; i < count; i++) {
    float w = (float)words[i], v = logarithm(w * w * 0x1p-62f + 0x1p-64f);
    float radius = sqrtf(v < 0 ? -v : 0.f);
    int32_t angle = halves[i], quadrant = (angle + 8192) >> 14;
    float x = (float)(angle - quadrant * 16384) * 9.5873799e-5f, z = x * x;
    float s = ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * x + x;
    float c = ((2.443315711809948e-5f * z - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * z * z - 0.5f * z + 1.f;
    float sine = quadrant & 1 ? c : s, cosine = quadrant & 1 ? s : c;
    sines[i] += radius * (quadrant & 2 ? -sine : sine);
    cosines[i] += radius * ((quadrant + 1) & 2 ? -cosine : cosine);
  }
}

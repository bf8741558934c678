// What lies between the matrix products on a CPU with AVX-512 and bfloat16 instructions: norms, rotations, the gated
// product, attention over shared prompts and over pages of keys, and the vocabulary's softmax. The matrix products
// themselves are oneDNN's. `kernels.py` builds this file, and names the PyTorch function that each of these replaces.
//
// Every row's result depends on that row alone: sums run in the order of positions, or in fixed lanes, wherever the
// keys are stored and however many queries are computed together. So sampler and trainer agree to the last bit.

#include <immintrin.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

using bf16 = uint16_t;
using V = __m512;
using Mask = __mmask16;

constexpr int LANES = 16;   // floats in a register, and keys in a block
constexpr int REPAIRED = 16;  // logits computed again in float32, see head.py
constexpr int BLOCKS = 256;   // of the vocabulary, see distribution.py

inline Mask lanes(long left) { return left >= LANES ? 0xFFFF : left <= 0 ? 0 : Mask((1u << left) - 1); }
inline V load(const float* p, Mask m = 0xFFFF) { return _mm512_maskz_loadu_ps(m, p); }
inline V load(const bf16* p, Mask m = 0xFFFF) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, p)), 16));
}
inline void store(float* p, V x, Mask m = 0xFFFF) { _mm512_mask_storeu_ps(p, m, x); }
inline void store(bf16* p, V x, Mask m = 0xFFFF) { _mm256_mask_storeu_epi16(p, m, (__m256i)_mm512_cvtneps_pbh(x)); }
inline float value(bf16 x) {
    uint32_t bits = uint32_t(x) << 16;
    float out;
    memcpy(&out, &bits, 4);
    return out;
}
inline V all(float x) { return _mm512_set1_ps(x); }
inline V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
inline float sum(V x) { return _mm512_reduce_add_ps(x); }

// e^x to 2e-7 relative: 2^n times a polynomial in the rest; 0 below -200, not-a-number stays.
inline V exponential(V x) {
    x = _mm512_max_ps(all(-200.f), x);
    V n = _mm512_roundscale_ps(_mm512_mul_ps(x, all(1.44269504088896341f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    V r = _mm512_fnmadd_ps(n, all(0.693145751953125f), x);
    r = _mm512_fnmadd_ps(n, all(1.42860682030941723e-6f), r);
    V p = all(1.f / 5040);
    for (float c : {1.f / 720, 1.f / 120, 1.f / 24, 1.f / 6, 1.f / 2, 1.f, 1.f}) p = fma(p, r, all(c));
    return _mm512_scalef_ps(p, n);
}

// Waking threads costs some microseconds, and much more where other programs want the cores: small work is done alone.
inline int crew(long elements, int threads) { return elements < 1 << 16 ? 1 : threads; }

inline V sigmoid(V x) { return _mm512_div_ps(all(1), _mm512_add_ps(all(1), exponential(_mm512_sub_ps(all(0), x)))); }

// ---- attention -------------------------------------------------------------------------------------------------
// A page holds the keys and values of 16 positions of one key head. Its keys lie as [hd / 2][16 keys][2], so that one
// instruction adds two products for each of 16 keys; its values as [16][hd].

inline void put_key(bf16* page, int lane, const bf16* key, int hd) {
    for (int d = 0; d < hd / 2; ++d) memcpy(page + d * 2 * LANES + 2 * lane, key + 2 * d, 4);
}

// scores[n][16 b + lane] = q[n] . key, for `blocks` pages.
template <int N>
inline void products(const bf16* const* q, const bf16* const* pages, int first, int blocks, int hd, float* scores, long width) {
    for (int b = first; b < blocks; ++b) {
        V acc[N];
        for (int n = 0; n < N; ++n) acc[n] = all(0);
        const bf16* page = pages[b];
        for (int d = 0; d < hd / 2; ++d) {
            __m512bh key = (__m512bh)_mm512_loadu_si512(page + d * 2 * LANES);
            for (int n = 0; n < N; ++n) {
                int pair;
                memcpy(&pair, q[n] + 2 * d, 4);
                acc[n] = _mm512_dpbf16_ps(acc[n], key, (__m512bh)_mm512_set1_epi32(pair));
            }
        }
        for (int n = 0; n < N; ++n) store(scores + n * width + b * LANES, acc[n]);
    }
}

// out[n] = sum over positions of weight[n][j] row(j), T lanes of 16 wide, in the order of positions.
template <int N, int T, class Row>
inline void weighted(const float* weights, long width, int from, int to, const Row& row, float* const* out) {
    V acc[N][T];
    for (int n = 0; n < N; ++n)
        for (int t = 0; t < T; ++t) acc[n][t] = all(0);
    for (int j = from; j < to; ++j) {
        V v[T];
        for (int t = 0; t < T; ++t) v[t] = load(row(j) + t * LANES);
        for (int n = 0; n < N; ++n) {
            V w = all(weights[n * width + j]);
            for (int t = 0; t < T; ++t) acc[n][t] = fma(w, v[t], acc[n][t]);
        }
    }
    for (int n = 0; n < N; ++n)
        for (int t = 0; t < T; ++t) store(out[n] + t * LANES, acc[n][t]);
}

// The same for N rows and all hd dimensions.
template <int N, class Row>
inline void mix(const float* weights, long width, int from, int to, int hd, const Row& row, float* const* out) {
    constexpr int PART = N % 6 == 0 ? 6 : N;  // rows whose sums fit into the registers
    for (int n = 0; n < N; n += PART) {
        float* at[PART];
        int d = 0;
        for (; d + 64 <= hd; d += 64) {
            for (int i = 0; i < PART; ++i) at[i] = out[n + i] + d;
            weighted<PART, 4>(weights + n * width, width, from, to, [&](int j) { return row(j) + d; }, at);
        }
        for (; d < hd; d += LANES) {
            for (int i = 0; i < PART; ++i) at[i] = out[n + i] + d;
            weighted<PART, 1>(weights + n * width, width, from, to, [&](int j) { return row(j) + d; }, at);
        }
    }
}

struct Query {
    const bf16* q;
    int from, to;  // positions it sees
    bf16* out;
    float* lse;
};

struct Scratch {
    std::vector<float> scores, rows;
};

template <int N>
void attend_some(const Query* queries, const bf16* const* keys, const bf16* const* values, int hd, float scale, Scratch& s) {
    int from = queries[0].from, to = queries[0].to;
    for (int n = 1; n < N; ++n) from = std::min(from, queries[n].from), to = std::max(to, queries[n].to);
    int first = from / LANES, blocks = (to + LANES - 1) / LANES;
    long width = long(blocks) * LANES;
    if (long(s.scores.size()) < N * width) s.scores.resize(N * width * 2);
    if (long(s.rows.size()) < N * hd) s.rows.resize(N * hd);
    const bf16* q[N];
    float* out[N];
    float total[N];
    for (int n = 0; n < N; ++n) q[n] = queries[n].q, out[n] = s.rows.data() + n * hd;
    products<N>(q, keys, first, blocks, hd, s.scores.data(), width);
    for (int n = 0; n < N; ++n) {
        float* row = s.scores.data() + n * width;
        V top = all(-INFINITY), sums = all(0);
        for (int b = first; b < blocks; ++b) {
            Mask seen = lanes(queries[n].to - b * LANES) & ~lanes(queries[n].from - b * LANES);
            V x = _mm512_mask_mul_ps(all(-INFINITY), seen, load(row + b * LANES), all(scale));
            store(row + b * LANES, x);
            top = _mm512_max_ps(top, x);
        }
        float most = _mm512_reduce_max_ps(top);
        for (int b = first; b < blocks; ++b) {
            V p = exponential(_mm512_sub_ps(load(row + b * LANES), all(most)));
            store(row + b * LANES, p);
            sums = _mm512_add_ps(sums, p);
        }
        total[n] = sum(sums);
        *queries[n].lse = most + std::log(total[n]);
    }
    mix<N>(s.scores.data(), width, from, to, hd, [&](int j) { return values[j / LANES] + (j % LANES) * hd; }, out);
    for (int n = 0; n < N; ++n)
        for (int d = 0; d < hd; d += LANES) store(queries[n].out + d, _mm512_div_ps(load(out[n] + d), all(total[n])));
}

void attend(const Query* queries, int n, const bf16* const* keys, const bf16* const* values, int hd, float scale, Scratch& s) {
    int i = 0;
    for (; i + 12 <= n; i += 12) attend_some<12>(queries + i, keys, values, hd, scale, s);
    for (; i + 3 <= n; i += 3) attend_some<3>(queries + i, keys, values, hd, scale, s);
    for (; i < n; ++i) attend_some<1>(queries + i, keys, values, hd, scale, s);
}

// Rows [R, H + 2K, hd]: queries, keys and values of a token side by side.
struct Shape {
    int heads, kv, hd, window;
    int group() const { return heads / kv; }
    long row() const { return long(heads + 2 * kv) * hd; }
    int from(int position) const { return window && position + 1 > window ? position + 1 - window : 0; }
};

// Keys and values of one member of a layout, as pages: those of the shared prompt stay from member to member.
struct Pages {
    std::vector<bf16> keys, values;
    std::vector<const bf16*> key_at, value_at;

    void grow(int positions, int hd) {
        size_t blocks = (positions + LANES - 1) / LANES;
        if (key_at.size() >= blocks) return;
        blocks += blocks / 2;
        keys.resize(blocks * LANES * hd);
        values.resize(blocks * LANES * hd);
        key_at.resize(blocks);
        value_at.resize(blocks);
        for (size_t b = 0; b < blocks; ++b) key_at[b] = &keys[b * LANES * hd], value_at[b] = &values[b * LANES * hd];
    }
    void put(const bf16* z, const Shape& shape, int head, long row, int at, int n) {
        const int hd = shape.hd;
        for (int i = 0; i < n; ++i) {
            const bf16* key = z + (row + i) * shape.row() + long(shape.heads + head) * hd;
            int position = at + i;
            put_key(&keys[size_t(position / LANES) * LANES * hd], position % LANES, key, hd);
            memcpy(&values[size_t(position) * hd], key + long(shape.kv) * hd, hd * sizeof(bf16));
        }
    }
};

struct Member {
    int prefix, shared, start, own;
};

// dK[j] += sum over n of slope[n][j] x[n], for positions from..to.
template <int J, int T>
inline void gather(const float* slope, long width, int n, const float* x, int hd, float* out, int j, int d) {
    V acc[J][T];
    for (int i = 0; i < J; ++i)
        for (int t = 0; t < T; ++t) acc[i][t] = load(out + long(j + i) * hd + d + t * LANES);
    for (int k = 0; k < n; ++k) {
        V v[T];
        for (int t = 0; t < T; ++t) v[t] = load(x + k * hd + d + t * LANES);
        for (int i = 0; i < J; ++i) {
            V w = all(slope[k * width + j + i]);
            for (int t = 0; t < T; ++t) acc[i][t] = fma(w, v[t], acc[i][t]);
        }
    }
    for (int i = 0; i < J; ++i)
        for (int t = 0; t < T; ++t) store(out + long(j + i) * hd + d + t * LANES, acc[i][t]);
}

void scatter_back(const float* slope, long width, int n, const float* x, int hd, float* out, int from, int to) {
    int d = 0;
    for (; d + 64 <= hd; d += 64) {
        int j = from;
        for (; j + 6 <= to; j += 6) gather<6, 4>(slope, width, n, x, hd, out, j, d);
        for (; j < to; ++j) gather<1, 4>(slope, width, n, x, hd, out, j, d);
    }
    for (; d < hd; d += LANES) {
        int j = from;
        for (; j + 6 <= to; j += 6) gather<6, 1>(slope, width, n, x, hd, out, j, d);
        for (; j < to; ++j) gather<1, 1>(slope, width, n, x, hd, out, j, d);
    }
}

// The backward pass of one member for one key head.
struct Backward {
    static constexpr int MOST = 48;  // query rows at once
    Pages pages;                     // keys; values in the layout of keys
    std::vector<bf16> value_blocks;
    std::vector<const bf16*> value_block_at;
    std::vector<float> key_rows, dkey, dvalue, scores, slopes, q_rows, grad_rows, dq_rows;

    void grow(int positions, int hd) {
        pages.grow(positions, hd);
        size_t blocks = pages.key_at.size();
        value_blocks.resize(blocks * LANES * hd);
        value_block_at.resize(blocks);
        for (size_t b = 0; b < blocks; ++b) value_block_at[b] = &value_blocks[b * LANES * hd];
        for (auto* rows : {&key_rows, &dkey, &dvalue}) rows->resize(blocks * LANES * hd);
        for (auto* rows : {&scores, &slopes}) rows->resize(size_t(MOST) * blocks * LANES);
        for (auto* rows : {&q_rows, &grad_rows, &dq_rows}) rows->resize(size_t(MOST) * hd);
    }
    void put(const bf16* z, const Shape& shape, int head, long row, int at, int n) {
        const int hd = shape.hd;
        pages.put(z, shape, head, row, at, n);
        for (int i = at; i < at + n; ++i) {
            put_key(&value_blocks[size_t(i / LANES) * LANES * hd], i % LANES, &pages.values[size_t(i) * hd], hd);
            const bf16* key = z + (row + i - at) * shape.row() + long(shape.heads + head) * hd;
            for (int d = 0; d < hd; d += LANES) store(&key_rows[size_t(i) * hd + d], load(key + d));
        }
        std::fill_n(&dkey[size_t(at) * hd], size_t(n) * hd, 0.f);
        std::fill_n(&dvalue[size_t(at) * hd], size_t(n) * hd, 0.f);
    }
    template <int N>
    void some(const bf16* const* q, const bf16* const* grad, int first, int blocks, int hd, long at, long width) {
        products<N>(q, pages.key_at.data(), first, blocks, hd, &scores[at * width], width);
        products<N>(grad, value_block_at.data(), first, blocks, hd, &slopes[at * width], width);
    }
    void member(const bf16* z, const bf16* out, const bf16* grad, const float* lse, bf16* dz, const Shape& shape, int head,
                const Member& m, float scale) {
        const int hd = shape.hd, g = shape.group(), rows = m.own * g;
        for (int begin = 0; begin < rows; begin += MOST) {
            int n = std::min(MOST, rows - begin);
            int to = m.shared + (begin + n - 1) / g + 1, from = shape.from(m.shared + begin / g);
            int first = from / LANES, blocks = (to + LANES - 1) / LANES;
            long width = long(blocks) * LANES;
            const bf16 *q[MOST], *slope[MOST];
            for (int i = 0; i < n; ++i) {
                long row = m.start + (begin + i) / g, h = head * g + (begin + i) % g;
                q[i] = z + row * shape.row() + h * hd;
                slope[i] = grad + (row * shape.heads + h) * hd;
            }
            int i = 0;
            for (; i + 12 <= n; i += 12) some<12>(q + i, slope + i, first, blocks, hd, i, width);
            for (; i + 3 <= n; i += 3) some<3>(q + i, slope + i, first, blocks, hd, i, width);
            for (; i < n; ++i) some<1>(q + i, slope + i, first, blocks, hd, i, width);
            for (i = 0; i < n; ++i) {
                int position = m.shared + (begin + i) / g;
                long row = m.start + (begin + i) / g, h = head * g + (begin + i) % g;
                V dot = all(0);
                for (int d = 0; d < hd; d += LANES) {
                    V x = load(slope[i] + d);
                    dot = fma(x, load(out + (row * shape.heads + h) * hd + d), dot);
                    store(&grad_rows[i * hd + d], x);
                    store(&q_rows[i * hd + d], load(q[i] + d));
                }
                V delta = all(sum(dot)), total = all(lse[row * shape.heads + h]);
                for (int b = first; b < blocks; ++b) {
                    Mask seen = lanes(position + 1 - b * LANES) & ~lanes(shape.from(position) - b * LANES);
                    float *p = &scores[i * width + b * LANES], *s = &slopes[i * width + b * LANES];
                    V x = _mm512_maskz_mov_ps(seen, exponential(_mm512_sub_ps(_mm512_mul_ps(load(p), all(scale)), total)));
                    V y = _mm512_mul_ps(_mm512_sub_ps(load(s), delta), all(scale));
                    store(p, x);
                    store(s, _mm512_maskz_mul_ps(seen, x, y));
                }
            }
            scatter_back(slopes.data(), width, n, q_rows.data(), hd, dkey.data(), from, to);
            scatter_back(scores.data(), width, n, grad_rows.data(), hd, dvalue.data(), from, to);
            float* at[MOST];
            for (i = 0; i < n; ++i) at[i] = &dq_rows[i * hd];
            auto key = [&](int j) { return &key_rows[size_t(j) * hd]; };
            for (i = 0; i + 6 <= n; i += 6) mix<6>(&slopes[i * width], width, from, to, hd, key, at + i);
            for (; i < n; ++i) mix<1>(&slopes[i * width], width, from, to, hd, key, at + i);
            for (i = 0; i < n; ++i) {
                long row = m.start + (begin + i) / g, h = head * g + (begin + i) % g;
                for (int d = 0; d < hd; d += LANES) store(dz + row * shape.row() + h * hd + d, load(at[i] + d));
            }
        }
    }
    void take(bf16* dz, const Shape& shape, int head, long row, int at, int n) {
        for (int i = 0; i < n; ++i) {
            bf16* to = dz + (row + i) * shape.row() + long(shape.heads + head) * shape.hd;
            for (int d = 0; d < shape.hd; d += LANES) {
                store(to + d, load(&dkey[size_t(at + i) * shape.hd + d]));
                store(to + long(shape.kv) * shape.hd + d, load(&dvalue[size_t(at + i) * shape.hd + d]));
            }
        }
    }
};

// ---- the vocabulary --------------------------------------------------------------------------------------------

// float32 scores of one row: the rounded logits, the largest 16 of them as float32 dot products, over temperature.
// Of equal logits the first ones count as larger.
struct Row {
    std::vector<float> x, mass;
    double sums[BLOCKS];
    float top, total;
    long vocabulary, width;

    explicit Row(long v) : x(v + LANES), mass((v + BLOCKS - 1) / BLOCKS * BLOCKS + LANES), vocabulary(v), width((v + BLOCKS - 1) / BLOCKS) {}

    void fill(const bf16* raw, const float* hidden, const bf16* matrix, long D, float temperature) {
        std::vector<float> most;
        for (long b = 0; b < vocabulary; b += width) {
            V best = all(-INFINITY);
            long end = std::min(vocabulary, b + width);
            for (long i = b; i < end; i += LANES) {
                Mask m = lanes(end - i);
                V v = load(raw + i, m);
                store(&x[i], v, m);
                best = _mm512_mask_max_ps(best, m, best, v);
            }
            most.push_back(_mm512_reduce_max_ps(best));
        }
        long kept = std::min<long>(REPAIRED, vocabulary);
        // at least `kept` entries are as large as the kept-th largest maximum of a block
        float least = -INFINITY;
        if (long(most.size()) >= kept) {
            std::vector<float> sorted = most;
            std::nth_element(sorted.begin(), sorted.begin() + kept - 1, sorted.end(), std::greater<float>());
            least = sorted[kept - 1];
        }
        std::vector<long> found;
        for (size_t b = 0; b < most.size(); ++b)
            if (most[b] >= least)
                for (long i = b * width; i < std::min<long>(vocabulary, (b + 1) * width); ++i)
                    if (x[i] >= least) found.push_back(i);
        auto before = [&](long a, long b) { return x[a] > x[b] || (x[a] == x[b] && a < b); };
        kept = std::min<long>(kept, found.size());  // fewer where logits are not numbers
        std::partial_sort(found.begin(), found.begin() + kept, found.end(), before);
        float exact[REPAIRED];
        for (long k = 0; k < kept; ++k) {
            V dot = all(0);
            for (long d = 0; d < D; d += LANES) {
                Mask m = lanes(D - d);
                dot = fma(load(hidden + d, m), load(matrix + found[k] * D + d, m), dot);
            }
            exact[k] = sum(dot);
        }
        for (long k = 0; k < kept; ++k) x[found[k]] = exact[k];
        if (temperature != 1)
            for (long i = 0; i < vocabulary; i += LANES) store(&x[i], _mm512_div_ps(load(&x[i]), all(temperature)));
    }
    void normalise() {
        V best = all(-INFINITY);
        for (long i = 0; i < vocabulary; i += LANES) {
            Mask m = lanes(vocabulary - i);
            best = _mm512_mask_max_ps(best, m, best, load(&x[i], m));
        }
        top = _mm512_reduce_max_ps(best);
        double all_of_it = 0;
        for (long b = 0; b < BLOCKS; ++b) {
            V s = all(0);
            for (long i = b * width; i < (b + 1) * width; i += LANES) {
                Mask room = lanes((b + 1) * width - i), real = room & lanes(vocabulary - i);
                V p = _mm512_maskz_mov_ps(real, exponential(_mm512_sub_ps(load(x.data() + (real ? i : 0), real), all(top))));
                store(&mass[i], p, room);
                s = _mm512_add_ps(s, p);
            }
            sums[b] = sum(s);
            all_of_it += sums[b];
        }
        total = top + float(std::log(all_of_it));
    }
    // The token at `uniform` of the cumulated mass.
    long pick(double uniform) const {
        double end = 0, before = 0;
        for (double s : sums) end += s;
        double target = uniform * end;
        long block = -1, last = 0;
        end = 0;
        for (long b = 0; b < BLOCKS; ++b) {
            if (sums[b] > 0) last = b;
            if (block < 0 && end + sums[b] > target) block = b, before = end;
            end += sums[b];
        }
        if (block < 0) {  // rounding may put the target at the very end
            block = last;
            before = 0;
            for (long b = 0; b < block; ++b) before += sums[b];
        }
        long token = 0;
        double at = before;
        for (long i = block * width; i < (block + 1) * width; ++i) {
            if (mass[i] > 0) token = i;
            at += mass[i];
            if (at > target && mass[i] > 0) return i;
        }
        return token;
    }
    long largest() const {
        return std::max_element(x.begin(), x.begin() + vocabulary) - x.begin();
    }
};

}  // namespace

extern "C" {

// y = round(h * scale * w), scale = 1 / sqrt(mean(h^2) + eps). h f32[R, D], w f32[D], y bf16[R, D], scale f32[R].
void norm(const float* h, const float* w, bf16* y, float* scale, long R, long D, float eps, int threads) {
#pragma omp parallel for num_threads(crew(R * D, threads)) schedule(static)
    for (long r = 0; r < R; ++r) {
        const float* x = h + r * D;
        V s = all(0);
        for (long d = 0; d < D; d += LANES) {
            V v = load(x + d, lanes(D - d));
            s = fma(v, v, s);
        }
        float factor = 1 / std::sqrt(sum(s) / D + eps);
        scale[r] = factor;
        for (long d = 0; d < D; d += LANES) {
            Mask m = lanes(D - d);
            store(y + r * D + d, _mm512_mul_ps(_mm512_mul_ps(load(x + d, m), all(factor)), load(w + d, m)), m);
        }
    }
}

// From dy bf16[R, D] to dh f32[R, D] and dw f32[D]; y bf16[R, D] is computed again for the matrix's gradient.
void norm_backward(const float* h, const float* w, const float* scale, const bf16* dy, float* dh, float* dw, bf16* y, long R,
                   long D, int threads) {
    const long parts = 16;  // fixed, so that sums over rows do not depend on the number of threads
    std::vector<float> partial(parts * D, 0.f);
#pragma omp parallel for num_threads(crew(R * D, threads)) schedule(static)
    for (long part = 0; part < parts; ++part) {
        float* mine = partial.data() + part * D;
        for (long r = R * part / parts; r < R * (part + 1) / parts; ++r) {
            V factor = all(scale[r]), dot = all(0);
            for (long d = 0; d < D; d += LANES) {
                Mask m = lanes(D - d);
                V unit = _mm512_mul_ps(load(h + r * D + d, m), factor), up = load(dy + r * D + d, m), weight = load(w + d, m);
                dot = fma(_mm512_mul_ps(up, weight), unit, dot);
                store(mine + d, fma(up, unit, load(mine + d, m)), m);
                store(y + r * D + d, _mm512_mul_ps(unit, weight), m);
            }
            V mean = all(sum(dot) / D);
            for (long d = 0; d < D; d += LANES) {
                Mask m = lanes(D - d);
                V unit = _mm512_mul_ps(load(h + r * D + d, m), factor);
                V g = _mm512_mul_ps(load(dy + r * D + d, m), load(w + d, m));
                store(dh + r * D + d, _mm512_mul_ps(_mm512_fnmadd_ps(unit, mean, g), factor), m);
            }
        }
    }
    for (long d = 0; d < D; ++d) {
        float s = 0;
        for (long part = 0; part < parts; ++part) s += partial[part * D + d];
        dw[d] = s;
    }
}

// y = round(silu(gate) * up): gate_up bf16[R, 2 I], y bf16[R, I].
void gated(const bf16* gate_up, bf16* y, long R, long I, int threads) {
#pragma omp parallel for num_threads(crew(R * I * 2, threads)) schedule(static)
    for (long r = 0; r < R; ++r)
        for (long i = 0; i < I; i += LANES) {
            Mask m = lanes(I - i);
            V gate = load(gate_up + 2 * r * I + i, m), up = load(gate_up + (2 * r + 1) * I + i, m);
            store(y + r * I + i, _mm512_mul_ps(_mm512_mul_ps(gate, sigmoid(gate)), up), m);
        }
}

// From dy bf16[R, I] to the gradient of gate_up; y is computed again.
void gated_backward(const bf16* gate_up, const bf16* dy, bf16* dgate_up, bf16* y, long R, long I, int threads) {
#pragma omp parallel for num_threads(crew(R * I * 4, threads)) schedule(static)
    for (long r = 0; r < R; ++r)
        for (long i = 0; i < I; i += LANES) {
            Mask m = lanes(I - i);
            V gate = load(gate_up + 2 * r * I + i, m), up = load(gate_up + (2 * r + 1) * I + i, m), g = load(dy + r * I + i, m);
            V soft = sigmoid(gate), silu = _mm512_mul_ps(gate, soft);
            // d silu(x) / dx = s + x s (1 - s)
            V slope = fma(silu, _mm512_sub_ps(all(1), soft), soft);
            store(y + r * I + i, _mm512_mul_ps(silu, up), m);
            store(dgate_up + 2 * r * I + i, _mm512_mul_ps(_mm512_mul_ps(g, up), slope), m);
            store(dgate_up + (2 * r + 1) * I + i, _mm512_mul_ps(g, silu), m);
        }
}

// Rotary embedding of the first `turned` of all heads by angle f32[R, hd / 2] (times `sign`); the rest is copied.
void rotate(const bf16* x, bf16* y, const float* cosine, const float* sine, long R, long heads, long turned, long hd, float sign,
            int threads) {
    const long half = hd / 2;
#pragma omp parallel for num_threads(crew(R * heads * hd, threads)) schedule(static)
    for (long r = 0; r < R; ++r) {
        const bf16* from = x + r * heads * hd;
        bf16* to = y + r * heads * hd;
        for (long h = 0; h < turned; ++h)
            for (long d = 0; d < half; d += LANES) {
                Mask m = lanes(half - d);
                V a = load(from + h * hd + d, m), b = load(from + h * hd + half + d, m);
                V c = load(cosine + r * half + d, m), s = _mm512_mul_ps(load(sine + r * half + d, m), all(sign));
                store(to + h * hd + d, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)), m);
                store(to + h * hd + half + d, fma(b, c, _mm512_mul_ps(a, s)), m);
            }
        if (to != from) memcpy(to + turned * hd, from + turned * hd, (heads - turned) * hd * sizeof(bf16));
    }
}

// z bf16[R, H + 2K, hd], members int32[M, 4] (first row and length of the shared beginning; first row and length of its
// own) -> out bf16[R, H, hd], lse f32[R, H].
void attention(const bf16* z, const Member* members, long M, bf16* out, float* lse, int heads, int kv, int hd, int window,
               int threads) {
    const Shape shape{heads, kv, hd, window};
    const float scale = 1 / std::sqrt(float(hd));
    const int g = shape.group();
#pragma omp parallel num_threads(threads)
    {
        Pages pages;
        Scratch scratch;
        std::vector<Query> queries;
        int held = -1, length = 0, of = -1;
#pragma omp for schedule(dynamic, 4)
        for (long task = 0; task < M * kv; ++task) {
            const Member& m = members[task % M];
            const int head = task / M;
            pages.grow(m.shared + m.own, hd);
            if (m.prefix != held || m.shared != length || head != of) pages.put(z, shape, head, m.prefix, 0, m.shared);
            held = m.shared ? m.prefix : -1, length = m.shared, of = head;
            pages.put(z, shape, head, m.start, m.shared, m.own);
            queries.clear();
            for (int i = 0; i < m.own; ++i)
                for (int h = head * g; h < (head + 1) * g; ++h) {
                    long row = m.start + i, at = row * heads + h;
                    queries.push_back({z + row * shape.row() + long(h) * hd, shape.from(m.shared + i), m.shared + i + 1,
                                       out + at * hd, lse + at});
                }
            attend(queries.data(), queries.size(), pages.key_at.data(), pages.value_at.data(), hd, scale, scratch);
        }
    }
}

// dz bf16[R, H + 2K, hd] from grad bf16[R, H, hd]. A cluster is a member without shared beginning and those after it
// that have one (its rows).
void attention_backward(const bf16* z, const bf16* out, const bf16* grad, const float* lse, const Member* members, long M, bf16* dz,
                        int heads, int kv, int hd, int window, int threads) {
    const Shape shape{heads, kv, hd, window};
    const float scale = 1 / std::sqrt(float(hd));
    std::vector<long> clusters;
    for (long i = 0; i < M; ++i)
        if (!members[i].shared) clusters.push_back(i);
    const long C = clusters.size();
    clusters.push_back(M);
#pragma omp parallel num_threads(threads)
    {
        Backward work;
#pragma omp for schedule(dynamic)
        for (long task = 0; task < C * kv; ++task) {
            const int head = task % kv;  // heads of a cluster one after the other: its rows stay in the cache
            const long begin = clusters[task / kv], end = clusters[task / kv + 1];
            int longest = 0;
            for (long i = begin; i < end; ++i) longest = std::max(longest, members[i].shared + members[i].own);
            work.grow(longest, hd);
            for (long i = begin; i < end; ++i) {
                const Member& m = members[i];
                work.put(z, shape, head, m.start, m.shared, m.own);
                work.member(z, out, grad, lse, dz, shape, head, m, scale);
                if (i != begin) work.take(dz, shape, head, m.start, m.shared, m.own);
            }
            work.take(dz, shape, head, members[begin].start, 0, members[begin].own);
        }
    }
}

// Stores the keys and values of rows z bf16[n, H + 2K, hd]: row i goes to `position[i]` of the page at `page[i]`.
// `skip` is the distance, in elements, of this layer's part from the beginning of a page.
void store_pages(const bf16* z, const int64_t* rows, bf16* const* page, const int* position, long n, long skip, int heads, int kv, int hd,
                 int threads) {
    const Shape shape{heads, kv, hd, 0};
#pragma omp parallel for num_threads(crew(n * kv * hd, threads)) schedule(static)
    for (long i = 0; i < n; ++i)
        for (int head = 0; head < kv; ++head) {
            bf16* at = page[i] + skip + long(head) * 2 * LANES * hd;
            const bf16* key = z + (rows ? rows[i] : i) * shape.row() + long(heads + head) * hd;
            put_key(at, position[i] % LANES, key, hd);
            memcpy(at + (LANES + position[i] % LANES) * hd, key + long(kv) * hd, hd * sizeof(bf16));
        }
}

// One query per row against its own pages: table of page addresses [n, wide], position int32[n] of the new token.
void attention_paged(const bf16* z, bf16* const* table, long wide, const int* position, bf16* out, float* lse, long n, long skip, int heads,
                     int kv, int hd, int window, int threads) {
    const Shape shape{heads, kv, hd, window};
    const float scale = 1 / std::sqrt(float(hd));
    const int g = shape.group();
    long seen = 0;
    for (long i = 0; i < n; ++i) seen += position[i] + 1;
#pragma omp parallel num_threads(crew(seen * heads * hd / 8, threads))
    {
        Scratch scratch;
        std::vector<const bf16*> keys, values;
        std::vector<Query> queries(g);
#pragma omp for schedule(dynamic, 8)
        for (long task = 0; task < n * kv; ++task) {
            const long i = task / kv;
            const int head = task % kv, blocks = position[i] / LANES + 1;
            keys.resize(blocks);
            values.resize(blocks);
            for (int b = 0; b < blocks; ++b) {
                keys[b] = table[i * wide + b] + skip + long(head) * 2 * LANES * hd;
                values[b] = keys[b] + LANES * hd;
            }
            for (int k = 0; k < g; ++k) {
                long h = head * g + k;
                queries[k] = {z + i * shape.row() + h * hd, shape.from(position[i]), position[i] + 1, out + (i * heads + h) * hd,
                              lse + i * heads + h};
            }
            attend(queries.data(), g, keys.data(), values.data(), hd, scale, scratch);
        }
    }
}

// One token for each row of raw bf16[N, V] by inverse CDF from `uniform` (or the largest), with its log-probability.
void draw(const bf16* raw, const float* hidden, const bf16* matrix, const double* uniform, int64_t* token, float* logp, long N, long vocabulary,
          long D, float temperature, int greedy, int threads) {
#pragma omp parallel num_threads(threads)
    {
        Row row(vocabulary);
#pragma omp for schedule(dynamic)
        for (long i = 0; i < N; ++i) {
            row.fill(raw + i * vocabulary, hidden + i * D, matrix, D, temperature);
            row.normalise();
            token[i] = greedy ? row.largest() : row.pick(uniform[i]);
            logp[i] = row.x[token[i]] - row.total;
        }
    }
}

// Log-probabilities of `chosen`, entropies (nats) where `spread` is given, and normalisers.
void read_head(const bf16* raw, const float* hidden, const bf16* matrix, const int64_t* chosen, float* logp, float* spread, float* total,
               long N, long vocabulary, long D, float temperature, int threads) {
#pragma omp parallel num_threads(threads)
    {
        Row row(vocabulary);
#pragma omp for schedule(dynamic)
        for (long i = 0; i < N; ++i) {
            row.fill(raw + i * vocabulary, hidden + i * D, matrix, D, temperature);
            row.normalise();
            total[i] = row.total;
            logp[i] = row.x[chosen[i]] - row.total;
            if (!spread) continue;
            V s = all(0);
            for (long j = 0; j < vocabulary; j += LANES) {
                V p = load(&row.mass[j], lanes(vocabulary - j));
                Mask some = _mm512_cmp_ps_mask(p, all(0), _CMP_NEQ_OQ);
                s = _mm512_mask3_fmadd_ps(p, load(&row.x[j]), s, some);
            }
            double mass = 0;
            for (double b : row.sums) mass += b;
            spread[i] = row.total - float(sum(s) / mass);
        }
    }
}

// d loss / d logits over raw itself: for the log-probability onehot - p, for the entropy -p (log p + H).
void pull_head(bf16* raw, const float* hidden, const bf16* matrix, const int64_t* chosen, const float* dlogp, const float* dspread,
               const float* spread, const float* total, long N, long vocabulary, long D, float temperature, int threads) {
#pragma omp parallel num_threads(threads)
    {
        Row row(vocabulary);
#pragma omp for schedule(dynamic)
        for (long i = 0; i < N; ++i) {
            bf16* out = raw + i * vocabulary;
            row.fill(out, hidden + i * D, matrix, D, temperature);
            const V whole = all(total[i]), slope = all(-dlogp[i] / temperature);
            const V of_spread = all(dspread ? -dspread[i] / temperature : 0), mean = all(dspread ? spread[i] : 0);
            for (long j = 0; j < vocabulary; j += LANES) {
                Mask m = lanes(vocabulary - j);
                V log_p = _mm512_sub_ps(load(&row.x[j], m), whole), p = exponential(log_p), factor = slope;
                if (dspread) {
                    Mask some = _mm512_cmp_ps_mask(p, all(0), _CMP_NEQ_OQ);
                    factor = fma(_mm512_add_ps(_mm512_maskz_mov_ps(some, log_p), mean), of_spread, slope);
                }
                V d = _mm512_mul_ps(p, factor);
                if (chosen[i] >= j && chosen[i] < j + LANES)
                    d = _mm512_mask_add_ps(d, Mask(1u << (chosen[i] - j)), d, all(dlogp[i] / temperature));
                store(out + j, d, m);
            }
        }
    }
}

}  // extern "C"

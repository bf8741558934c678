// y = x W^T + b in bfloat16 with the matrix tiles of AMX. oneDNN's products there add in an order that depends on the
// number of rows; here every number of y is the sum over the columns of W from the first to the last, 32 at a time, so a
// row's bits depend on that row alone. A tile of W is read where it lies (16 outputs, 32 columns), x is packed
// beforehand (32 columns, 16 rows, two columns in a word), and a tile of y comes out with outputs as rows: it is turned.

#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__linux__)

#include <immintrin.h>
#include <omp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace {

using bf16 = uint16_t;

constexpr long SIDE = 16, DEPTH = 32, TILE = SIDE * DEPTH, PAIR = 2 * SIDE;
constexpr long PANEL = 1 << 20;  // bytes of x that are packed at once: half of the second cache

struct Config {  // of the tile registers, as LDTILECFG reads it
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
};

// The compiler is not told which memory the tile instructions read: what they read must be written before this.
inline void settled(const void* p) { asm volatile("" : : "r"(p) : "memory"); }

inline __mmask32 first(long n) { return n >= 32 ? ~0u : n <= 0 ? 0 : (1u << n) - 1; }

// 16 x 16 words.
inline void turn(__m512i* r) {
    __m512i t[16];
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++) {
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

inline __m512 widened(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }

// The tile of columns 32 k to 32 k + 31 of 16 rows of x (of which `have` exist).
inline void pack(const bf16* x, bf16* to, long have, long k, long I) {
    __m512i r[SIDE];
    for (long i = 0; i < SIDE; i++) r[i] = _mm512_maskz_loadu_epi16(i < have ? first(I - k * DEPTH) : 0, x + i * I + k * DEPTH);
    turn(r);
    for (long i = 0; i < SIDE; i++) _mm512_store_si512(to + i * DEPTH, r[i]);
}

// 32 outputs (`n` of them exist) of 32 rows: tile registers 0 and 1 hold the first 16 rows, 2 and 3 the others.
inline void multiply(const bf16* w, const bf16* x, long n, long depth, long I) {
    alignas(64) bf16 edge[2 * TILE];
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (long k = 0; k < depth; k++) {
        const bf16* from = w + k * DEPTH;
        long stride = I * 2;
        if (const long columns = std::min(DEPTH, I - k * DEPTH); n < PAIR || columns < DEPTH) {
            settled(edge);
            memset(edge, 0, sizeof edge);
            for (long i = 0; i < n; i++) memcpy(edge + i * DEPTH, from + i * I, columns * 2);
            settled(edge);
            from = edge;
            stride = DEPTH * 2;
        }
        _tile_loadd(4, from, stride);
        _tile_loadd(6, x + k * TILE, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(5, (const char*)from + SIDE * stride, stride);
        _tile_dpbf16ps(1, 5, 6);
        _tile_loadd(7, x + (depth + k) * TILE, 64);
        _tile_dpbf16ps(2, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
    }
}

}  // namespace

extern "C" {

// Whether the system lets this process use the tiles: Linux wants to be asked (XTILEDATA is feature 18).
int tiles_allowed() {
    unsigned long granted = 0;
    constexpr long get = 0x1022, ask = 0x1023, data = 18;
    return !syscall(SYS_arch_prctl, ask, data) && !syscall(SYS_arch_prctl, get, &granted) && (granted >> data & 1);
}

// y bf16[R, O] of x bf16[R, I], w bf16[O, I], bias bf16[O] or null; rounded once.
void product(const bf16* x, const bf16* w, const bf16* bias, bf16* y, long R, long O, long I, int threads) {
    static thread_local bf16* packed = nullptr;
    static thread_local long room = 0;
    // A result beyond the caches is written past them, whole lines at a time.
    const bool past = R * O * 2 > 4 << 20 && O % PAIR == 0 && uintptr_t(y) % 64 == 0;
    const long depth = (I + DEPTH - 1) / DEPTH, most = std::max(PAIR, PANEL / (depth * DEPTH * 2) / PAIR * PAIR);
    for (long top = 0; top < R; top += most) {
        const long rows = std::min(most, R - top), pairs = (rows + PAIR - 1) / PAIR;
        if (const long size = pairs * 2 * depth * TILE * 2; size > room) {
            free(packed);
            packed = (bf16*)aligned_alloc(64, room = size);
        }
        bf16* const tiles = packed;
#pragma omp parallel num_threads(R * O * I < 1 << 22 ? 1 : threads)
        {
#pragma omp for schedule(static)
            for (long b = 0; b < 2 * pairs; b++)
                for (long k = 0; k < depth; k++)
                    pack(x + (top + b * SIDE) * I, tiles + (b * depth + k) * TILE, rows - b * SIDE, k, I);
            Config mine, before;
            for (int i = 0; i < 8; i++) mine.bytes[i] = 64, mine.rows[i] = 16;
            _tile_storeconfig(&before);
            settled(&mine);
            _tile_loadconfig(&mine);
#pragma omp for schedule(static)
            for (long o = 0; o < O; o += PAIR) {
                const long n = std::min(PAIR, O - o);
                __m512 low = _mm512_setzero_ps(), high = low;
                if (bias) {
                    const __m512i b = _mm512_maskz_loadu_epi16(first(n), bias + o);
                    low = widened(_mm512_castsi512_si256(b));
                    high = widened(_mm512_extracti64x4_epi64(b, 1));
                }
                for (long p = 0; p < pairs; p++) {
                    alignas(64) float out[4][SIDE * SIDE];
                    multiply(w + o * I, tiles + 2 * p * depth * TILE, n, depth, I);
                    _tile_stored(0, out[0], 64);
                    _tile_stored(1, out[1], 64);
                    _tile_stored(2, out[2], 64);
                    _tile_stored(3, out[3], 64);
                    for (long half = 0; half < 2; half++) {
                        const long at = p * PAIR + half * SIDE;
                        __m512i a[SIDE], b[SIDE];
                        for (long i = 0; i < SIDE; i++) {
                            a[i] = _mm512_load_si512(out[2 * half] + i * SIDE);
                            b[i] = _mm512_load_si512(out[2 * half + 1] + i * SIDE);
                        }
                        turn(a);
                        turn(b);
                        for (long i = 0; i < std::min(SIDE, rows - at); i++) {
                            const __m512 l = _mm512_add_ps(_mm512_castsi512_ps(a[i]), low);
                            const __m512 h = _mm512_add_ps(_mm512_castsi512_ps(b[i]), high);
                            const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(h, l);
                            bf16* const to = y + (top + at + i) * O + o;
                            past ? _mm512_stream_si512((__m512i*)to, both) : _mm512_mask_storeu_epi16(to, first(n), both);
                        }
                    }
                }
            }
            _mm_sfence();
            settled(&before);
            before.palette ? _tile_loadconfig(&before) : _tile_release();
        }
    }
}

}  // extern "C"

#else

extern "C" {
int tiles_allowed() { return 0; }
void product(const void*, const void*, const void*, void*, long, long, long, int) {}
}

#endif

/* Gives MLX's CPU build a fast BLAS: its undefined symbols (nm -D libmlx.so) cblas_sgemm, cblas_dgemm and cblas_cgemm
   are forwarded to the `scipy_` names of the scipy-openblas32 package. Loaded with RTLD_GLOBAL before mlx.core, so that
   these definitions are found first. Signatures: the CBLAS interface, with 32-bit integers.

   Small products (attention heads, LoRA's own) run on one thread: waking the others costs more than they save, and on a
   busy machine several times more. */

#define WORTH_THREADS 16e6 /* multiplications: about 0.4 ms of one core */

extern void scipy_openblas_set_num_threads(int);
extern int scipy_openblas_get_num_threads(void);

static void choose_threads(double work) {
    static int most = 0, now = 0;
    if (most == 0) most = now = scipy_openblas_get_num_threads();
    int wanted = work < WORTH_THREADS ? 1 : most;
    if (wanted != now) scipy_openblas_set_num_threads(now = wanted);
}

#define GEMM(name, scalar, pointer)                                                                                 \
    extern void scipy_##name(int, int, int, int, int, int, scalar, const pointer *, int, const pointer *, int,      \
                             scalar, pointer *, int);                                                               \
    void name(int order, int trans_a, int trans_b, int m, int n, int k, scalar alpha, const pointer *a, int lda,    \
              const pointer *b, int ldb, scalar beta, pointer *c, int ldc) {                                        \
        choose_threads((double)m * n * k);                                                                          \
        scipy_##name(order, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);                        \
    }

GEMM(cblas_sgemm, float, float)
GEMM(cblas_dgemm, double, double)
GEMM(cblas_cgemm, const void *, void)

/* Gives MLX's CPU build a fast BLAS: its undefined symbols (nm -D libmlx.so) cblas_sgemm, cblas_dgemm and cblas_cgemm
   are forwarded to the `scipy_` names of the scipy-openblas32 package. Loaded with RTLD_GLOBAL before mlx.core, so that
   these definitions are found first. Signatures: the CBLAS interface, with 32-bit integers. */

#define GEMM(name, scalar, pointer)                                                                                 \
    extern void scipy_##name(int, int, int, int, int, int, scalar, const pointer *, int, const pointer *, int,      \
                             scalar, pointer *, int);                                                               \
    void name(int order, int trans_a, int trans_b, int m, int n, int k, scalar alpha, const pointer *a, int lda,    \
              const pointer *b, int ldb, scalar beta, pointer *c, int ldc) {                                        \
        scipy_##name(order, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);                        \
    }

GEMM(cblas_sgemm, float, float)
GEMM(cblas_dgemm, double, double)
GEMM(cblas_cgemm, const void *, void)

package cudamodules

// ProductGeometry is how the kernels of products are started, gemm_f32 and gemm_f64 of module matmul and those of module quantized that
// name no row: for results of m × n, `batch` of them. Size is that of a number in bytes, 4 or 8.
func ProductGeometry(size, m, n, batch int) Geometry {
	tile := 128
	if size == 8 {
		tile = 64
	}
	return Geometry{Grid: [3]int{(m + tile - 1) / tile, (n + tile - 1) / tile, batch}, Block: [3]int{256}}
}

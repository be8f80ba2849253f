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

// FewRows is up to how many rows the kernels gemm_row, quantized_row and rounded_row are meant for: they read the right operand once
// for four.
const FewRows = 4

// RowGeometry is how the kernels gemm_row_f32 and gemm_row_f64 of module matmul are started, for results of m × n.
func RowGeometry(m, n int) Geometry {
	return Geometry{Grid: [3]int{(n + 31) / 32, (m + 3) / 4}, Block: [3]int{512}}
}

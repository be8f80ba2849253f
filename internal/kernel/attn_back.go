package kernel

import (
	"fmt"
	"math"
	"unsafe"
)

// What the backward pass of attention does on pieces (pieces.go) besides packing matrices: operands that are packed once are multiplied
// in parts, and weights are cut into pieces where they are made. T is float32.

// PieceTile is the number of elements of 16 lines of 32 steps in pieces.
const PieceTile = pieceParts * pieceTile

// PiecesFused reports whether MultiplyPieces runs in tiles here, several times as fast as Tile.
func PiecesFused[T Float]() bool { return matrixVectorized[T]() }

// SplitRows packs x, rows × cols with rows ld apart, for sums over its columns. If turned is false, 16 rows of x become the lines of
// tiles: an operand A = x. If turned is true, they become the columns: an operand B = xᵀ. Tile (i, p) of rows 16i… and columns 32p…
// goes to dst[(i·cols/32 + p)·PieceTile:]. rows is a multiple of 16, cols one of 32. It returns the largest |x|, NaN for a NaN.
func SplitRows[T Float](dst []uint16, x []T, ld, rows, cols int, turned bool) T {
	if rows <= 0 || cols <= 0 {
		return 0
	}
	if rows%16 != 0 || cols%32 != 0 || cols > ld {
		panic(fmt.Sprintf("kernel: SplitRows: got %d×%d in rows of %d, want multiples of 16 and 32", rows, cols, ld))
	}
	checkLen("x", len(x), (rows-1)*ld+cols)
	checkLen("dst", len(dst), rows*cols*3)
	from, tiles := as32(x), cols/32
	if !matrixVectorized[T]() {
		return T(math.Float32frombits(splitTiles(dst, from, ld, 1, rows, cols, turned)))
	}
	var words [32]uint32
	newBounds(words[:])
	for i := range rows / 16 {
		to := dst[i*tiles*PieceTile:]
		splitLinesSIMD(to, from[16*i*ld:], ld, 16, tiles, words[:])
		if turned {
			turnTilesSIMD(to, pieceParts*tiles)
		}
	}
	return T(math.Float32frombits(boundsOf(words[:]).most))
}

// SplitColumns packs x, rows × cols with rows ld apart, for sums over its rows. If turned is false, 16 columns of x become the
// columns of tiles: an operand B = x. If turned is true, they become the lines: an operand A = xᵀ. Tile (j, p) of columns 16j… and
// rows 32p… goes to dst[(j·rows/32 + p)·PieceTile:]. rows is a multiple of 32, cols one of 16. It returns the largest |x|, NaN for a
// NaN.
func SplitColumns[T Float](dst []uint16, x []T, ld, rows, cols int, turned bool) T {
	if rows <= 0 || cols <= 0 {
		return 0
	}
	if rows%32 != 0 || cols%16 != 0 || cols > ld {
		panic(fmt.Sprintf("kernel: SplitColumns: got %d×%d in rows of %d, want multiples of 32 and 16", rows, cols, ld))
	}
	checkLen("x", len(x), (rows-1)*ld+cols)
	checkLen("dst", len(dst), rows*cols*3)
	from, tiles := as32(x), rows/32
	if !matrixVectorized[T]() {
		return T(math.Float32frombits(splitTiles(dst, from, 1, ld, cols, rows, !turned)))
	}
	var words [32 * piecePanels]uint32
	panels, all := cols/16, PieceBounds{}
	for j := 0; j < panels; j += piecePanels {
		n := min(piecePanels, panels-j)
		newBounds(words[:32*n])
		splitPairsSIMD(dst[j*tiles*PieceTile:], tiles*PieceTile, from[16*j:], ld, n, tiles, words[:])
		for p := range n {
			all.most = max(all.most, boundsOf(words[32*p:]).most)
		}
	}
	if turned {
		turnTilesSIMD(dst, pieceParts*tiles*panels)
	}
	return T(math.Float32frombits(all.most))
}

// splitTiles packs tiles of lines side by side in panels of 16, portably: step p of line i is x[i·line + p·step].
func splitTiles(dst []uint16, x []float32, line, step, lines, steps int, byStep bool) (most uint32) {
	for i := range lines {
		for p := range steps {
			v := x[i*line+p*step]
			most = max(most, math.Float32bits(v)&^(1<<31))
			row, col := i%16, p%16
			if byStep {
				row, col = col, row
			}
			to := dst[(i/16*(steps/32)+p/32)*PieceTile:]
			for piece, bits := range cut(v) {
				to[512*piece+32*row+2*col+p%32/16] = bits
			}
		}
	}
	return most
}

// cut cuts x into the bits of its pieces. Of the last one nothing is left over unless it is below 2⁻¹²⁶.
func cut(x float32) (bits [pieceParts]uint16) {
	for i := range bits {
		u := math.Float32bits(x)
		if i+1 < pieceParts {
			u += 1 << 15 // to the nearest, half away from 0
		}
		bits[i] = uint16(u >> 16)
		x -= math.Float32frombits(u &^ 0xffff)
	}
	return bits
}

// PieceProducts is a list of products C = A·B or C += A·B of packed operands, in blocks of at most 32 rows and 32 columns, of which it holds
// maxProducts.
type PieceProducts struct {
	blocks [maxProducts]productBlock
	n      int
}

// maxProducts is the number of blocks that a list holds: those of a tile of the backward pass take 56 for heads of 256.
const maxProducts = 64

// productBlock is what the assembly takes; gen/attnback knows the order. The second tile of rows of A and that of columns of B are not
// read where C has no such tile.
type productBlock struct {
	c            unsafe.Pointer
	ldc          int // in bytes
	a, a2, b, b2 unsafe.Pointer
	steps, kind  int
}

// Bits of a block's kind.
const (
	pieceAdd    = 1
	pieceNarrow = 2 // one tile of columns
	pieceLow    = 4 // one tile of rows
)

// Reset empties the list.
func (l *PieceProducts) Reset() { l.n = 0 }

// AddPieces appends a product to l: C = A·B, or C += A·B if add, for 16m rows and 16n columns of c, rows ldc apart, and sums over 32k: a and b
// are packed, their tiles of rows and columns lda and ldb tiles apart. Sums are those of TilePieces, to the bit, whatever m, n and the place.
func AddPieces[T Float](l *PieceProducts, c []T, ldc int, a []uint16, lda int, b []uint16, ldb, m, n, k int, add bool) {
	if n := l.n + tasks(m, 2)*tasks(n, 2); n > maxProducts {
		panic(fmt.Sprintf("kernel: AddPieces: got %d blocks of products in a list, want at most %d", n, maxProducts))
	}
	l.n += blocksOf(l.blocks[l.n:], as32(c), ldc, a, lda, b, ldb, m, n, k, add)
}

// MultiplyPieces computes the product that AddPieces appends, of any size.
func MultiplyPieces[T Float](c []T, ldc int, a []uint16, lda int, b []uint16, ldb, m, n, k int, add bool) {
	const rows, cols = 4, 8 // in tiles
	var blocks [rows * cols / 4]productBlock
	for i := 0; i < m; i += rows {
		for j := 0; j < n; j += cols {
			some := blocksOf(blocks[:], as32(c[16*(i*ldc+j):]), ldc, a[i*lda*PieceTile:], lda, b[j*ldb*PieceTile:], ldb, min(rows, m-i), min(cols, n-j), k, add)
			weigh(nil, nil, blocks[:some])
		}
	}
}

// blocksOf writes the blocks of a product to list, and returns how many.
func blocksOf(list []productBlock, c []float32, ldc int, a []uint16, lda int, b []uint16, ldb, m, n, k int, add bool) (count int) {
	if m <= 0 || n <= 0 || k <= 0 {
		return 0
	}
	if lda < k || ldb < k || ldc < 16*n {
		panic(fmt.Sprintf("kernel: AddPieces: got %d and %d tiles for sums over %d, rows of %d for %d columns", lda, ldb, k, ldc, 16*n))
	}
	checkLen("A", len(a), ((m-1)*lda+k)*PieceTile)
	checkLen("B", len(b), ((n-1)*ldb+k)*PieceTile)
	checkLen("C", len(c), (16*m-1)*ldc+16*n)
	kind := 0
	if add {
		kind = pieceAdd
	}
	for i := 0; i < m; i += 2 {
		for j := 0; j < n; j += 2 {
			x := &list[count]
			*x = productBlock{unsafe.Pointer(&c[16*(i*ldc+j)]), 4 * ldc, unsafe.Pointer(&a[i*lda*PieceTile]), nil,
				unsafe.Pointer(&b[j*ldb*PieceTile]), nil, k, kind}
			if i+1 < m {
				x.a2 = unsafe.Pointer(&a[(i+1)*lda*PieceTile])
			} else {
				x.kind |= pieceLow
			}
			if j+1 < n {
				x.b2 = unsafe.Pointer(&b[(j+1)*ldb*PieceTile])
			} else {
				x.kind |= pieceNarrow
			}
			count++
		}
	}
	return count
}

// compute computes a block portably.
func (x *productBlock) compute() {
	m, n, ldc := 32, 32, x.ldc/4
	if x.kind&pieceLow != 0 {
		m = 16
	}
	if x.kind&pieceNarrow != 0 {
		n = 16
	}
	c := unsafe.Slice((*float32)(x.c), (m-1)*ldc+n)
	tiles := func(p unsafe.Pointer) []uint16 { return unsafe.Slice((*uint16)(p), x.steps*PieceTile) }
	for i := range m {
		from := tiles([]unsafe.Pointer{x.a, x.a2}[i/16])
		for j := range n {
			by, sum := tiles([]unsafe.Pointer{x.b, x.b2}[j/16]), float32(0)
			if x.kind&pieceAdd != 0 {
				sum = c[i*ldc+j]
			}
			for p := range x.steps {
				x, y := from[p*PieceTile+i%16*32:], by[p*PieceTile+j%16*2:]
				for _, s := range [...][2]int{{2, 0}, {1, 0}, {1, 1}, {0, 1}, {0, 2}, {0, 0}} { // as gen/amx has them
					sum = pairs(sum, x[512*s[0]:], y[512*s[1]:])
				}
			}
			c[i*ldc+j] = sum
		}
	}
}

// pairs adds 32 products to sum as a tile does: the first of each pair and the second of each pair by themselves.
func pairs(sum float32, x, y []uint16) float32 {
	var s [2]float32
	wide := func(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }
	for p := range 16 {
		for h := range s {
			s[h] = fma(wide(x[2*p+h]), wide(y[32*p+h]), s[h])
		}
	}
	return sum + (s[0] + s[1])
}

// What lies between the products of the backward pass, for a tile of up to BackRows rows and BackCols columns of scores s and of
// dP = dOut·v, in rows of BackCols, the latter BackRows rows behind the former:
//
//	P = e^(s−Max)    dS = P∘(dP−Delta)
//
// P and dS are cut into pieces, as operands B whose rows are summed over, tile (j, p) of columns 16j… and rows 32p… at
// (j·BackRows/32 + p)·PieceTile, those of dS behind all of P; dS also as an operand A whose columns are summed over, tile (i, p) of rows 16i… and
// columns 32p… at (i·BackCols/32 + p)·PieceTile.
const (
	BackRows = 96
	BackCols = 64
)

// BackRow is what a row of scores has. A bit of Seen is one of 32 columns; P is 0 where it is 0. A Max of +Inf is that of a row that sees no key.
type BackRow struct {
	Max, Delta float32
	Seen       uint32
	_          uint32
}

// WeighRun is 32 rows and 32 columns of what Weigh does.
type WeighRun struct {
	scores unsafe.Pointer // of row 0 and column 0
	rows   unsafe.Pointer
	// Pieces of P, those of dS behind them; of dS as A.
	byCols, byRows unsafe.Pointer
}

// BackTile is the memory of a tile between the products: of S and dP, of P and dS by columns, of dS by rows.
type BackTile[T Float] struct {
	Scores         []T      // 2·BackRows·BackCols
	ByCols, ByRows []uint16 // 6·BackRows·BackCols, 3·BackRows·BackCols
}

// Run is Weigh's of rows 32i… and columns 32j…, rows being of the former.
func (t *BackTile[T]) Run(i, j int, rows []BackRow) WeighRun {
	if i < 0 || i >= BackRows/32 || j < 0 || j >= BackCols/32 {
		panic(fmt.Sprintf("kernel: BackTile.Run: got place (%d, %d), want less than (%d, %d)", i, j, BackRows/32, BackCols/32))
	}
	checkLen("scores", len(t.Scores), 2*BackRows*BackCols)
	checkLen("pieces by columns", len(t.ByCols), 6*BackRows*BackCols)
	checkLen("pieces by rows", len(t.ByRows), 3*BackRows*BackCols)
	checkLen("rows", len(rows), 32)
	s := as32(t.Scores)
	return WeighRun{unsafe.Pointer(&s[32*(i*BackCols+j)]), unsafe.Pointer(&rows[0]),
		unsafe.Pointer(&t.ByCols[(2*j*BackRows/32+i)*PieceTile]), unsafe.Pointer(&t.ByRows[(2*i*BackCols/32+j)*PieceTile])}
}

// Weigh computes the products of first, whose blocks must be whole and set C, and what runs say, in any order, and then the products of
// then. What runs read must not be written by first.
func Weigh(first *PieceProducts, runs []WeighRun, then *PieceProducts) {
	for i := range first.blocks[:first.n] {
		if first.blocks[i].kind != 0 {
			panic("kernel: Weigh: got a product that is not of whole blocks, or adds, among the first")
		}
	}
	weigh(first.blocks[:first.n], runs, then.blocks[:then.n])
}

func weigh(first []productBlock, runs []WeighRun, then []productBlock) {
	if matrixVectorized[float32]() {
		weighSIMD(first, runs, then)
		return
	}
	for i := range first {
		first[i].compute()
	}
	for i := range runs {
		runs[i].compute()
	}
	for i := range then {
		then[i].compute()
	}
}

// compute computes a run portably.
func (x *WeighRun) compute() {
	s := unsafe.Slice((*float32)(x.scores), BackRows*BackCols+31*BackCols+32)
	rows := unsafe.Slice((*BackRow)(x.rows), 32)
	var p, ds [32 * 32]float32
	for i, r := range rows {
		for j := range 32 {
			if r.Seen>>j&1 == 0 {
				continue
			}
			w := float32(math.Exp(float64(s[i*BackCols+j]) - float64(r.Max)))
			p[32*i+j], ds[32*i+j] = w, w*(s[(BackRows+i)*BackCols+j]-r.Delta)
		}
	}
	const across, down, all = BackRows / 32 * PieceTile, BackCols / 32 * PieceTile, BackCols / 16 * BackRows / 32 * PieceTile
	byCols := unsafe.Slice((*uint16)(x.byCols), all+across+PieceTile)
	byRows := unsafe.Slice((*uint16)(x.byRows), down+PieceTile)
	for j := range 2 {
		splitTiles(byCols[j*across:], p[16*j:], 1, 32, 16, 32, true)
		splitTiles(byCols[all+j*across:], ds[16*j:], 1, 32, 16, 32, true)
		splitTiles(byRows[j*down:], ds[16*32*j:], 32, 1, 16, 32, false)
	}
}

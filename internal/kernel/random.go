package kernel

import (
	"fmt"
	"math"
	"math/bits"
)

// Random decisions come from Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011), a
// function of a seed and a counter: the word of element e is the same on every machine, in any order, as often as asked.
//
// Element e takes word (e>>4)&3 of the block whose counter is (e>>6)·16 + e&15, so that a vector of 8 or 16 counters yields words
// of neighbouring elements.

const (
	wordsPerBlock = 64 // elements that 16 counters serve
	wordBuffer    = 16 * wordsPerBlock
)

// philox4x32 returns the four words for a 128-bit counter and a 64-bit key, ten rounds.
func philox4x32(c [4]uint32, key [2]uint32) [4]uint32 {
	for range 10 {
		h0, l0 := bits.Mul32(0xd2511f53, c[0])
		h1, l1 := bits.Mul32(0xcd9e8d57, c[2])
		c = [4]uint32{h1 ^ c[1] ^ key[0], l1, h0 ^ c[3] ^ key[1], l0}
		key[0] += 0x9e3779b9
		key[1] += 0xbb67ae85
	}
	return c
}

// randomWords fills dst, whole blocks of 64, with the words of the elements from 64·block on.
func randomWords(dst []uint32, seed, block uint64) {
	if simdPhilox(dst, len(dst)/wordsPerBlock, block*16, seed) {
		return
	}
	key := [2]uint32{uint32(seed), uint32(seed >> 32)}
	for b := range len(dst) / wordsPerBlock {
		for l := range 16 {
			n := (block+uint64(b))*16 + uint64(l)
			for w, v := range philox4x32([4]uint32{uint32(n), uint32(n >> 32)}, key) {
				dst[b*wordsPerBlock+16*w+l] = v
			}
		}
	}
}

// DropoutRow computes dst[j] = x[j]/keep with probability keep, and 0 otherwise (Srivastava et al. 2014, inverted). The decision on
// element j depends on seed and offset+j only, so a backward pass repeats it, and rows may be cut anywhere. offset < 2⁶³;
// 0 ≤ keep ≤ 1. dst may be x.
func DropoutRow[T Float](dst, x []T, seed, offset uint64, keep float64) {
	sameLen("DropoutRow", len(dst), len(x))
	if !(keep >= 0 && keep <= 1) {
		panic(fmt.Sprintf("kernel: DropoutRow: keep %v, want 0 to 1", keep))
	}
	below := uint64(DropoutBound(keep))
	switch {
	case below == 0:
		clear(dst)
		return
	case below == 1<<32:
		copy(dst, x)
		return
	}
	scale := T(1 / keep)
	var buffer [wordBuffer]uint32
	for len(x) > 0 {
		skip := int(offset % wordsPerBlock)
		n := min(len(x), wordBuffer-skip)
		words := buffer[:(skip+n+wordsPerBlock-1)&^(wordsPerBlock-1)]
		randomWords(words, seed, offset/wordsPerBlock)
		dropWords(dst[:n], x[:n], words[skip:skip+n], uint32(below), scale)
		dst, x, offset = dst[n:], x[n:], offset+uint64(n)
	}
}

// DropoutBound is what a random word must be below for its element to be kept: 2³² keeps all.
func DropoutBound(keep float64) int { return int(math.Round(keep * (1 << 32))) }

func dropWords[T Float](dst, x []T, words []uint32, below uint32, scale T) {
	if is32[T]() && simdDropWords(as32(dst), as32(x), words, below, float32(scale)) {
		return
	}
	for i, v := range x {
		if words[i] < below {
			dst[i] = v * scale
		} else {
			dst[i] = 0
		}
	}
}

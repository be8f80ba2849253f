package main
import ("testing";"context";"math/rand/v2";"io";"time";"fmt";"os";"strconv")
func TestX(t *testing.T) {
	n, _ := strconv.Atoi(os.Getenv("STEPS"))
	w := newWeights(rand.New(rand.NewPCG(1, 0)))
	train(context.Background(), w, 1, 5, io.Discard)
	s := time.Now()
	l, err := train(context.Background(), w, 1, n, io.Discard)
	d := time.Since(s)
	fmt.Println(l, err, d, d/time.Duration(n))
	s = time.Now()
	b := newBatch(batchSize, perScene)
	rng := rand.New(rand.NewPCG(1, 1))
	for range 20 { b.fill(rng) }
	fmt.Println("fill", time.Since(s)/20)
}

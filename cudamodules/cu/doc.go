// Package cu takes the place of gorgonia.org/cu under Gorgonia's build tag cuda: the part of it that Gorgonia uses, over package
// stheno/cudamodules, which opens the CUDA driver at run time. So a program builds with no CUDA toolkit and no cuDNN, and starts
// on machines without a card:
//
//	go build -tags cuda -modfile=go.cuda.mod ./...
//
// What differs from the original: work is not queued but handed to the driver at once, so nothing waits for a queue that could
// overflow; launches may have parameters of any size and more than 48 KB of dynamic shared memory; there is one context a device,
// shared by all who ask for it; errors of calls that have no result of their own are kept until Errors is asked.
package cu

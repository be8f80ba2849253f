// It also imports stheno/cudamodules, but may not say so: the only module that it is built in is stheno, by way of go.cuda.mod there,
// and a requirement on a main module would bring its whole history of requirements into the build list.
module gorgonia.org/cu

go 1.26.0

require gonum.org/v1/gonum v0.16.0

package main
func (e *emitter) vectors() {}
func (e *emitter) integers() {}

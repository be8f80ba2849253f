package main
func (e *emitter) panels() {}
func (e *emitter) rows() {}
func (e *emitter) vectors() {}
func (e *emitter) integers() {}

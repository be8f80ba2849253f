package main

func (e *emitter) vectors() {}

package op

// Copier is an op that copies more than its inputs when it runs on a card.
type Copier interface {
	// Copies are the bytes of its own numbers that a run sends to the card, at most, and which of its inputs it reads back.
	Copies() (sent int64, readBack []int)
}

// Copies are those of the gradient.
func (o *gradOp) Copies() (sent int64, readBack []int) {
	if c, ok := o.of.(Copier); ok {
		sent, _ = c.Copies()
	}
	return sent, nil
}

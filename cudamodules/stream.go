package cudamodules

import (
	"context"
	"fmt"
	"time"
)

// Stream is a queue of work on a card. A nil *Stream is the default stream.
type Stream struct {
	ctx    *Context
	handle uintptr
}

func (s *Stream) raw() uintptr {
	if s == nil {
		return 0
	}
	return s.handle
}

// Stream makes a queue that does not wait for the default stream.
func (c *Context) Stream() (*Stream, error) {
	const nonBlocking = 1
	h, err := c.take("cuStreamCreate", heldStream, 0, func(a *api, h *uintptr) Result { return a.streamCreate(h, nonBlocking) })
	if err != nil {
		return nil, err
	}
	return &Stream{ctx: c, handle: h}, nil
}

// Close gives the stream back once its work has ended.
func (s *Stream) Close() error { return s.ctx.give(heldStream, s.handle) }

// Synchronize waits for the stream's work.
func (s *Stream) Synchronize() error {
	return s.ctx.call("cuStreamSynchronize", func(a *api) Result { return a.streamSynchronize(s.handle) })
}

// Wait is Synchronize with a way out: it returns the error of ctx when that ends first. The work goes on then.
func (s *Stream) Wait(ctx context.Context) error {
	pause := 10 * time.Microsecond
	for {
		var r Result
		err := s.ctx.call("cuStreamQuery", func(a *api) Result {
			if r = a.streamQuery(s.handle); r == notReady {
				return success
			}
			return r
		})
		if err != nil || r == success {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cudamodules: waiting for a stream of %s: %w", s.ctx.device.name, ctx.Err())
		case <-time.After(pause):
			pause = min(2*pause, time.Millisecond)
		}
	}
}

// WaitFor lets the stream's later work wait for an event.
func (s *Stream) WaitFor(e *Event) error {
	return s.ctx.call("cuStreamWaitEvent", func(a *api) Result { return a.streamWaitEvent(s.handle, e.handle, 0) })
}

// Event is a point in a stream's work, with its time.
type Event struct {
	ctx    *Context
	handle uintptr
}

// Event makes an event that nothing has recorded yet.
func (c *Context) Event() (*Event, error) {
	h, err := c.take("cuEventCreate", heldEvent, 0, func(a *api, h *uintptr) Result { return a.eventCreate(h, 0) })
	if err != nil {
		return nil, err
	}
	return &Event{ctx: c, handle: h}, nil
}

// Close gives the event back.
func (e *Event) Close() error { return e.ctx.give(heldEvent, e.handle) }

// Record marks the end of what has been put on the stream so far.
func (e *Event) Record(s *Stream) error {
	return e.ctx.call("cuEventRecord", func(a *api) Result { return a.eventRecord(e.handle, s.raw()) })
}

// Synchronize waits until the stream has come to the event.
func (e *Event) Synchronize() error {
	return e.ctx.call("cuEventSynchronize", func(a *api) Result { return a.eventSynchronize(e.handle) })
}

// Since is the time on the card from start to e, both recorded and reached.
func (e *Event) Since(start *Event) (time.Duration, error) {
	var ms float32
	err := e.ctx.call("cuEventElapsedTime", func(a *api) Result { return a.eventElapsed(&ms, start.handle, e.handle) })
	return time.Duration(float64(ms) * float64(time.Millisecond)), err
}

package sinks

import (
	"context"
	"errors"
	"time"
)

// WithClock gives the outbox the clock of a test.
func WithClock(c OutboxConfig, now func() time.Time) OutboxConfig {
	c.now = now
	return c
}

// Pass makes one pass for every receiver, whoever holds the lease.
func (o *Outbox) Pass(ctx context.Context) error {
	var errs []error
	for _, w := range o.workers {
		errs = append(errs, w.pass(ctx))
		w.poster.close()
	}
	return errors.Join(errs...)
}

// Lead asks for the lease of the first receiver, as at the start of a pass; Release gives it up.
func (o *Outbox) Lead(ctx context.Context) (bool, error) { return o.workers[0].lead(ctx) }

// Release gives up the lease.
func (o *Outbox) Release(ctx context.Context) { o.workers[0].release(ctx) }

// Interpose makes all requests go through f, which gets a function that really sends.
func (o *Outbox) Interpose(f func(send func() error) error) {
	for _, w := range o.workers {
		w.receiver = interposedReceiver{w.receiver, f}
	}
}

// LoseProgress makes what receivers acknowledge be forgotten, as when ClickHouse is gone by then.
func (o *Outbox) LoseProgress() {
	for _, w := range o.workers {
		w.receiver = forgetful{w.receiver, &w.store}
	}
}

type interposedReceiver struct {
	receiver
	f func(send func() error) error
}

func (r interposedReceiver) send(ctx context.Context, messages []message) error {
	return r.f(func() error { return r.receiver.send(ctx, messages) })
}

type forgetful struct {
	receiver
	store *outboxStore
}

func (r forgetful) send(ctx context.Context, messages []message) error {
	err := r.receiver.send(ctx, messages)
	r.store.database = "no_such_database"
	return err
}

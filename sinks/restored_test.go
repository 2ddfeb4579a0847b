package sinks_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/signindiag/signindiag/sinks"
)

// TestWentBack: a sink that finds the tables behind what they have acknowledged ends instead of writing over the gap, and only then.
func TestWentBack(t *testing.T) {
	for _, c := range []struct {
		name string
		wipe string
		want bool
	}{
		{"progress is gone", "TRUNCATE TABLE %.progress", true},
		{"another instance is ahead", "INSERT INTO %.progress (topic, shard, epoch, offset, incarnation) VALUES ('" + topic + "', 0, 2, 5, 7)", false},
		{"as it was", "SELECT 1", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEnvironment(t)
			s := e.sink(e.config())
			var cut atomic.Bool
			s.Interpose(func(i sinks.Insert, send func() error) error {
				if cut.CompareAndSwap(true, false) {
					return io.ErrUnexpectedEOF
				}
				return send()
			})
			done := make(chan error, 1)
			ctx, cancel := context.WithCancel(e.ctx)
			defer cancel()
			go func() { done <- s.Run(ctx) }()
			r := rand.New(rand.NewPCG(15, 15))
			for i := range int64(100) {
				e.write(s, rowsOf(diagnosis(r, i)), position(0, i))
			}
			e.flush(s)
			e.exec(replaceDatabase(c.wipe, e.database))
			cut.Store(true)
			e.write(s, rowsOf(diagnosis(r, 100)), position(0, 100))
			err := s.Flush(e.ctx)
			if !c.want {
				cancel()
				if err != nil || <-done != nil || e.count("diagnoses") != 101 {
					t.Errorf("Flush: %v, %d rows", err, e.count("diagnoses"))
				}
				return
			}
			var wentBack *sinks.WentBackError
			if err := <-done; !errors.As(err, &wentBack) || wentBack.Acknowledged.Offset != 99 {
				t.Errorf("Run: %v", err)
			}
			if err == nil || len(e.progress()) != 0 {
				t.Errorf("Flush: %v; progress %v was written over the gap", err, e.progress())
			}
		})
	}
}

func replaceDatabase(sql, database string) string { return strings.ReplaceAll(sql, "%", database) }

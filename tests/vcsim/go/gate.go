package main

import (
	"strings"
	"sync"
)

// gate counts the calls, keeps a log of them, and can hold one call so that a
// test can do something (kill the client) exactly there.
type gate struct {
	mu     sync.Mutex
	cond   *sync.Cond
	log    []*passage
	counts map[string]int
	stop   *stop
	held   *passage // the call that is held now
	frozen bool     // while one is held, no other begins
	drop   bool     // what release said
}

// passage is one call.
type passage struct {
	N      int    `json:"n"`    // from 1
	Call   string `json:"call"` // a SOAP method, or "GET /folder"
	On     string `json:"on"`   // the managed object's id, or the path
	Status int    `json:"status"`
	Done   bool   `json:"done"`
}

// stop says which call to hold.
type stop struct {
	N      int    `json:"n"`    // the how manieth from now on
	Call   string `json:"call"` // of all calls, or of those with this name
	When   string `json:"when"` // before or after it is done
	Freeze bool   `json:"freeze"`
}

func (g *gate) init() {
	g.cond = sync.NewCond(&g.mu)
	g.counts = map[string]int{}
}

// enter logs a call; ok is false when it must not be done.
func (g *gate) enter(call, on string) (p *passage, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.frozen {
		g.cond.Wait()
	}
	p = &passage{N: len(g.log) + 1, Call: call, On: on}
	g.log = append(g.log, p)
	g.counts[call]++
	return p, !g.hold(p, "before")
}

// done is to be called when a call has been executed, before its client is told.
func (g *gate) done(p *passage, status int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p.Status = status
	g.hold(p, "after")
}

// leave ends a call.
func (g *gate) leave(p *passage) {
	g.mu.Lock()
	p.Done = true
	g.cond.Broadcast()
	g.mu.Unlock()
}

// hold waits if this is the call to hold; it returns whether to drop the call.
func (g *gate) hold(p *passage, when string) bool {
	s := g.stop
	if s == nil || s.When != when || s.Call != "" && !strings.HasPrefix(p.Call, s.Call) {
		return false
	}
	if s.N--; s.N > 0 {
		return false
	}
	g.stop, g.held, g.frozen = nil, p, s.Freeze
	g.cond.Broadcast()
	for g.held == p {
		g.cond.Wait()
	}
	return g.drop
}

// waitHeld returns when a call is held.
func (g *gate) waitHeld() passage {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.held == nil {
		g.cond.Wait()
	}
	return *g.held
}

// release lets the held call go on and waits for its end; a dropped one is never executed.
func (g *gate) release(drop bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.held
	g.stop, g.held, g.frozen, g.drop = nil, nil, false, drop
	g.cond.Broadcast()
	for p != nil && !p.Done {
		g.cond.Wait()
	}
}

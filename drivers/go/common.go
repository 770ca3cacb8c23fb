package main

// What the programs share: 50 sessions at once, one line a scenario.

import (
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"
	"sync"
)

func sessions() int {
	if n, err := strconv.Atoi(os.Getenv("SESSIONS")); err == nil {
		return n
	}
	return 50
}

// Keys of advisory locks that no other run uses.
var run = os.Getpid()

// Fails a scenario; `together` catches it.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

func check(got, wanted interface{}) {
	if !reflect.DeepEqual(got, wanted) {
		panic(fmt.Errorf("is %v, not %v", got, wanted))
	}
}

func raises(code string, err error, state func(error) string) {
	if err == nil {
		panic(fmt.Errorf("no error %s", code))
	}
	if state(err) != code {
		panic(err)
	}
}

func together(name string, body func(session int)) {
	var running sync.WaitGroup
	var lock sync.Mutex
	var bad []string
	for n := 0; n < sessions(); n++ {
		running.Add(1)
		go func(session int) {
			defer running.Done()
			defer func() {
				if e := recover(); e != nil {
					lock.Lock()
					bad = append(bad, fmt.Sprint(e))
					lock.Unlock()
				}
			}()
			body(session)
		}(n)
	}
	running.Wait()
	if len(bad) == 0 {
		fmt.Println("ok", name)
	} else {
		fmt.Printf("FAILED %s %d of %d sessions: %s\n", name, len(bad), sessions(), strings.ReplaceAll(bad[0], "\n", " "))
	}
}

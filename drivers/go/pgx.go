package main

// pgx: every text is a named statement, kept by the connection; batches are pipelines.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgx/v4"
)

var background = context.Background()

func state(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return err.Error()
}

func connect() *pgx.Conn {
	// Of PGHOST and its like.
	c, err := pgx.Connect(background, "")
	must(err)
	return c
}

type querier interface {
	QueryRow(context.Context, string, ...interface{}) pgx.Row
	Exec(context.Context, string, ...interface{}) (pgconn.CommandTag, error)
}

func exec(c querier, sql string, parameters ...interface{}) int64 {
	tag, err := c.Exec(background, sql, parameters...)
	must(err)
	return tag.RowsAffected()
}

func integer(c querier, sql string, parameters ...interface{}) (n int) {
	must(c.QueryRow(background, sql, parameters...).Scan(&n))
	return
}

func text(c querier, sql string, parameters ...interface{}) (s string) {
	must(c.QueryRow(background, sql, parameters...).Scan(&s))
	return
}

var scenarios = map[string]func(int, *pgx.Conn){
	"transactions": func(session int, c *pgx.Conn) {
		kept := 0
		for n := 0; n < 20; n++ {
			t, err := c.Begin(background)
			must(err)
			exec(t, "INSERT INTO items (session, n, value) VALUES ($1, $2, 'x')", session, n)
			backend := integer(t, "SELECT pg_backend_pid()")
			check(integer(t, "SELECT count(*) FROM items WHERE session = $1", session), kept+1)
			check(integer(t, "SELECT pg_backend_pid()"), backend)
			if n%4 == 3 {
				must(t.Rollback(background))
			} else {
				must(t.Commit(background))
				kept++
			}
		}
		check(exec(c, "DELETE FROM items WHERE session = $1", session), int64(kept))
	},
	"prepared": func(session int, c *pgx.Conn) {
		for turn := 0; turn < 8; turn++ {
			for n := 0; n < 20; n++ {
				check(integer(c, fmt.Sprintf("SELECT $1::int + %d", n), session), session+n)
				own := 1000*(session+1) + n
				check(integer(c, fmt.Sprintf("SELECT $1::int * %d", own), 2), 2*own)
			}
		}
		_, err := c.Prepare(background, "mine", fmt.Sprintf("SELECT $1::int + %d", session))
		must(err)
		check(integer(c, "mine", 1), session+1)
		must(c.Deallocate(background, "mine"))
		_, err = c.Prepare(background, "mine", "SELECT $1::int * 7")
		must(err)
		check(integer(c, "mine", 1), 7)
		_, err = c.Prepare(background, "wrong", "SELEC 1")
		raises("42601", err, state)
	},
	"pipeline": func(session int, c *pgx.Conn) {
		for turn := 0; turn < 5; turn++ {
			batch := &pgx.Batch{}
			for n := 0; n < 30; n++ {
				batch.Queue("SELECT $1::int + $2", session, n)
			}
			results := c.SendBatch(background, batch)
			for n := 0; n < 30; n++ {
				var got int
				must(results.QueryRow().Scan(&got))
				check(got, session+n)
			}
			must(results.Close())
			// One implicit transaction: nothing of it is left.
			failing := &pgx.Batch{}
			failing.Queue("INSERT INTO items (session, n, value) VALUES ($1, 0, 'lost')", session)
			failing.Queue("SELECT 1 / $1::int", 0)
			failing.Queue("INSERT INTO items (session, n, value) VALUES ($1, 1, 'lost')", session)
			results = c.SendBatch(background, failing)
			_, err := results.Exec()
			must(err)
			_, err = results.Exec()
			raises("22012", err, state)
			results.Close()
			check(integer(c, "SELECT count(*) FROM items WHERE session = $1", session), 0)
		}
	},
	"error": func(session int, c *pgx.Conn) {
		for turn := 0; turn < 5; turn++ {
			t, err := c.Begin(background)
			must(err)
			exec(t, "INSERT INTO items (session, n, value) VALUES ($1, 0, 'lost')", session)
			_, err = t.Exec(background, "SELECT * FROM nonsense")
			raises("42P01", err, state)
			_, err = t.Exec(background, "SELECT 1")
			raises("25P02", err, state)
			must(t.Rollback(background))
			check(integer(c, "SELECT count(*) FROM items WHERE session = $1", session), 0)
		}
	},
	"cancel": func(session int, c *pgx.Conn) {
		for turn := 0; turn < 2; turn++ {
			done := make(chan bool)
			go func() {
				for {
					select {
					case <-done:
						return
					case <-time.After(300 * time.Millisecond):
						c.PgConn().CancelRequest(background)
					}
				}
			}()
			_, err := c.Exec(background, "SELECT pg_sleep(50)")
			close(done)
			raises("57014", err, state)
		}
		// One that has come too late is spent.
		time.Sleep(400 * time.Millisecond)
		check(integer(c, "SELECT $1::int", session), session)
	},
	"copy": func(session int, c *pgx.Conn) {
		rows := [][]interface{}{}
		wanted := ""
		for n := 0; n < 500; n++ {
			rows = append(rows, []interface{}{session, n, fmt.Sprintf("s%d-%d", session, n)})
			wanted += fmt.Sprintf("%d\t%d\ts%d-%d\n", session, n, session, n)
		}
		done, err := c.CopyFrom(background, pgx.Identifier{"items"}, []string{"session", "n", "value"}, pgx.CopyFromRows(rows))
		must(err)
		check(done, int64(500))
		var out bytes.Buffer
		_, err = c.PgConn().CopyTo(background, &out, fmt.Sprintf("COPY (SELECT session, n, value FROM items WHERE session = %d ORDER BY n) TO STDOUT", session))
		must(err)
		check(out.String(), wanted)
		_, err = c.PgConn().CopyFrom(background, bytes.NewBufferString("not a number\n"), "COPY items (session, n, value) FROM STDIN")
		raises("22P02", err, state)
		check(integer(c, "SELECT count(*) FROM items WHERE session = $1", session), 500)
	},
	"cursor": func(session int, c *pgx.Conn) {
		for turn := 0; turn < 3; turn++ {
			t, err := c.Begin(background)
			must(err)
			exec(t, fmt.Sprintf("DECLARE numbers CURSOR FOR SELECT %d * 1000 + n FROM generate_series(1, 350) AS n", session))
			seen := 0
			for fetched := -1; fetched != 0; {
				rows, err := t.Query(background, "FETCH 100 FROM numbers")
				must(err)
				for fetched = 0; rows.Next(); fetched++ {
					var n int
					must(rows.Scan(&n))
					seen++
					check(n, session*1000+seen)
				}
				must(rows.Err())
			}
			check(seen, 350)
			must(t.Commit(background))
		}
	},
	"settings": func(session int, c *pgx.Conn) {
		exec(c, fmt.Sprintf("SET search_path TO s%d, public", session))
		exec(c, "SET TIME ZONE 'Asia/Tokyo'")
		text(c, "SELECT set_config('app.me', $1, false)", fmt.Sprintf("s%d", session))
		for turn := 0; turn < 10; turn++ {
			check(integer(c, "SELECT session FROM whoami"), session)
			check(text(c, "SELECT current_setting('TimeZone') || current_setting('app.me')"), fmt.Sprintf("Asia/Tokyos%d", session))
			t, err := c.Begin(background)
			must(err)
			exec(t, "SET app.me = 'nobody'")
			must(t.Rollback(background))
		}
	},
	"notify": func(session int, c *pgx.Conn) {
		exec(c, fmt.Sprintf("LISTEN c%d", session))
		for n := 0; n < 3; n++ {
			exec(c, "SELECT pg_notify($1, $2)", fmt.Sprintf("c%d", session), fmt.Sprint(n))
			limit, end := context.WithTimeout(background, 20*time.Second)
			got, err := c.WaitForNotification(limit)
			end()
			must(err)
			check(got.Payload, fmt.Sprint(n))
		}
		exec(c, "UNLISTEN *")
	},
	"advisory": func(session int, c *pgx.Conn) {
		exec(c, "SELECT pg_advisory_lock($1::bigint)", run)
		value := integer(c, "SELECT value FROM counter")
		check(exec(c, "UPDATE counter SET value = $1 WHERE value = $2", value+1, value), int64(1))
		check(text(c, "SELECT pg_advisory_unlock($1::bigint)::text", run), "true")
	},
	"temp": func(session int, c *pgx.Conn) {
		exec(c, "CREATE TEMPORARY TABLE mine (n int)")
		for n := 0; n < 5; n++ {
			exec(c, "INSERT INTO mine VALUES ($1)", session)
		}
		check(integer(c, "SELECT sum(n) FROM mine"), 5*session)
		exec(c, "DROP TABLE mine")
	},
}

func main() {
	for _, name := range os.Args[1:] {
		if name == "--version" {
			fmt.Println("pgx v4 of Debian")
		} else if body, known := scenarios[name]; known {
			together(name, func(session int) {
				c := connect()
				defer c.Close(background)
				body(session, c)
			})
		}
	}
}

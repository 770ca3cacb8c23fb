package main

// lib/pq below database/sql: unnamed statements, two round trips a query; a pool of one connection is a session.

import (
	"database/sql"
	"fmt"
	"os"
	"time"

	"github.com/lib/pq"
)

func state(err error) string {
	if e, ok := err.(*pq.Error); ok {
		return string(e.Code)
	}
	return err.Error()
}

// Of PGHOST and its like; the driver's own default asks for TLS.
const dsn = "sslmode=disable"

func connect() *sql.DB {
	db, err := sql.Open("postgres", dsn)
	must(err)
	db.SetMaxOpenConns(1)
	must(db.Ping())
	return db
}

type querier interface {
	QueryRow(string, ...interface{}) *sql.Row
	Exec(string, ...interface{}) (sql.Result, error)
}

func exec(c querier, text string, parameters ...interface{}) int64 {
	result, err := c.Exec(text, parameters...)
	must(err)
	n, _ := result.RowsAffected()
	return n
}

func one(c querier, text string, parameters ...interface{}) (s string) {
	must(c.QueryRow(text, parameters...).Scan(&s))
	return
}

var scenarios = map[string]func(int, *sql.DB){
	"transactions": func(session int, db *sql.DB) {
		kept := 0
		for n := 0; n < 20; n++ {
			t, err := db.Begin()
			must(err)
			exec(t, "INSERT INTO items (session, n, value) VALUES ($1, $2, 'x')", session, n)
			check(one(t, "SELECT count(*) FROM items WHERE session = $1", session), fmt.Sprint(kept+1))
			if n%4 == 3 {
				must(t.Rollback())
			} else {
				must(t.Commit())
				kept++
			}
		}
		check(exec(db, "DELETE FROM items WHERE session = $1", session), int64(kept))
	},
	"prepared": func(session int, db *sql.DB) {
		statement, err := db.Prepare("SELECT $1::int + 1")
		must(err)
		own, err := db.Prepare(fmt.Sprintf("SELECT $1::int * %d", session+7))
		must(err)
		for n := 0; n < 50; n++ {
			var got int
			must(statement.QueryRow(n).Scan(&got))
			check(got, n+1)
			must(own.QueryRow(n).Scan(&got))
			check(got, n*(session+7))
			check(one(db, "SELECT $1::text", n), fmt.Sprint(n))
		}
		must(own.Close())
		_, err = db.Prepare("SELEC 1")
		raises("42601", err, state)
	},
	"error": func(session int, db *sql.DB) {
		for turn := 0; turn < 5; turn++ {
			t, err := db.Begin()
			must(err)
			exec(t, "INSERT INTO items (session, n, value) VALUES ($1, 0, 'lost')", session)
			_, err = t.Exec("SELECT 1 / $1::int", 0)
			raises("22012", err, state)
			must(t.Rollback())
			check(one(db, "SELECT count(*) FROM items WHERE session = $1", session), "0")
		}
	},
	"copy": func(session int, db *sql.DB) {
		t, err := db.Begin()
		must(err)
		in, err := t.Prepare(pq.CopyIn("items", "session", "n", "value"))
		must(err)
		for n := 0; n < 500; n++ {
			_, err = in.Exec(session, n, "c")
			must(err)
		}
		_, err = in.Exec()
		must(err)
		must(in.Close())
		must(t.Commit())
		check(one(db, "SELECT count(*) FROM items WHERE session = $1", session), "500")
	},
	"settings": func(session int, db *sql.DB) {
		exec(db, fmt.Sprintf("SET search_path TO s%d, public", session))
		exec(db, "SET TIME ZONE 'Asia/Tokyo'")
		for turn := 0; turn < 10; turn++ {
			check(one(db, "SELECT session || current_setting('TimeZone') FROM whoami"), fmt.Sprintf("%dAsia/Tokyo", session))
		}
	},
	"notify": func(session int, db *sql.DB) {
		listener := pq.NewListener(dsn, time.Second, time.Minute, nil)
		defer listener.Close()
		channel := fmt.Sprintf("c%d", session)
		must(listener.Listen(channel))
		for n := 0; n < 3; n++ {
			exec(db, "SELECT pg_notify($1, $2)", channel, fmt.Sprint(n))
			select {
			case got := <-listener.Notify:
				check(got.Extra, fmt.Sprint(n))
			case <-time.After(20 * time.Second):
				panic("not notified")
			}
		}
	},
	"advisory": func(session int, db *sql.DB) {
		exec(db, "SELECT pg_advisory_lock($1)", run)
		var value int
		must(db.QueryRow("SELECT value FROM counter").Scan(&value))
		check(exec(db, "UPDATE counter SET value = $1 WHERE value = $2", value+1, value), int64(1))
		check(one(db, "SELECT pg_advisory_unlock($1)", run), "true")
	},
	"temp": func(session int, db *sql.DB) {
		exec(db, "CREATE TEMPORARY TABLE mine (n int)")
		for n := 0; n < 5; n++ {
			exec(db, "INSERT INTO mine VALUES ($1)", session)
		}
		check(one(db, "SELECT sum(n) FROM mine"), fmt.Sprint(5*session))
		exec(db, "DROP TABLE mine")
	},
}

func main() {
	for _, name := range os.Args[1:] {
		if name == "--version" {
			fmt.Println("lib/pq of Debian")
		} else if body, known := scenarios[name]; known {
			together(name, func(session int) {
				db := connect()
				defer db.Close()
				body(session, db)
			})
		}
	}
}

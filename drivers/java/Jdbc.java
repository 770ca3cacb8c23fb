// pgjdbc: extended protocol throughout; a statement is named from its fifth use on.
import java.io.StringReader;
import java.io.StringWriter;
import java.sql.*;
import java.util.*;
import java.util.concurrent.*;
import org.postgresql.PGConnection;

public class Jdbc {
    static final int SESSIONS = Integer.parseInt(System.getenv().getOrDefault("SESSIONS", "50"));
    static final long RUN = ProcessHandle.current().pid();
    static final String[] ZONES = {"UTC", "Asia/Tokyo", "America/New_York", "Europe/Paris", "Australia/Sydney"};

    interface Body { void run(int session, Connection c) throws Exception; }
    interface Step { void run() throws Exception; }

    static void check(Object got, Object wanted) {
        if (!Objects.equals(got, wanted)) throw new AssertionError("is " + got + ", not " + wanted);
    }
    static void raises(String state, Step step) throws Exception {
        try {
            step.run();
        } catch (SQLException e) {
            if (state != null && !state.equals(e.getSQLState())) throw e;
            return;
        }
        throw new AssertionError("no error " + state);
    }
    static Connection connect() throws SQLException {
        Map<String, String> env = System.getenv();
        return DriverManager.getConnection("jdbc:postgresql://" + env.get("PGHOST") + ":" + env.get("PGPORT") + "/" + env.get("PGDATABASE"),
            env.get("PGUSER"), env.get("PGPASSWORD"));
    }
    // Rows as lists of strings.
    static List<List<String>> rows(Connection c, String sql, Object... parameters) throws SQLException {
        try (PreparedStatement s = c.prepareStatement(sql)) {
            for (int n = 0; n < parameters.length; n++) s.setObject(n + 1, parameters[n]);
            List<List<String>> rows = new ArrayList<>();
            if (!s.execute()) return rows;
            try (ResultSet r = s.getResultSet()) {
                while (r.next()) {
                    List<String> row = new ArrayList<>();
                    for (int n = 1; n <= r.getMetaData().getColumnCount(); n++) row.add(r.getString(n));
                    rows.add(row);
                }
            }
            return rows;
        }
    }
    static String one(Connection c, String sql, Object... parameters) throws SQLException {
        return rows(c, sql, parameters).get(0).get(0);
    }
    static void run(Connection c, String sql) throws SQLException {
        try (Statement s = c.createStatement()) { s.execute(sql); }
    }

    static void transactions(int session, Connection c) throws Exception {
        c.setAutoCommit(false);
        int kept = 0;
        for (int n = 0; n < 20; n++) {
            rows(c, "INSERT INTO items (session, n, value) VALUES (?, ?, ?)", session, n, "s" + session + "-" + n);
            check(one(c, "SELECT value FROM items WHERE session = ? AND n = ?", session, n), "s" + session + "-" + n);
            String backend = one(c, "SELECT pg_backend_pid()");
            check(one(c, "SELECT count(*) FROM items WHERE session = ?", session), "" + (kept + 1));
            check(one(c, "SELECT pg_backend_pid()"), backend);
            if (n % 4 == 3) c.rollback(); else { c.commit(); kept++; }
        }
        c.setAutoCommit(true);
        check(rows(c, "DELETE FROM items WHERE session = ? RETURNING 1", session).size(), kept);
    }
    static void prepared(int session, Connection c) throws Exception {
        try (PreparedStatement shared = c.prepareStatement("SELECT ? + 1000")) {
            for (int turn = 0; turn < 12; turn++) {
                shared.setInt(1, session);
                try (ResultSet r = shared.executeQuery()) { r.next(); check(r.getInt(1), session + 1000); }
                for (int n = 0; n < 10; n++) {
                    check(one(c, "SELECT ?::int + " + n, session), "" + (session + n));
                    check(one(c, "SELECT ?::int * " + (1000 * (session + 1) + n), 2), "" + 2 * (1000 * (session + 1) + n));
                }
            }
        }
        raises("42601", () -> one(c, "SELEC ?", 1));
        raises("22012", () -> one(c, "SELECT 1 / ?::int", 0));
    }
    static void pipeline(int session, Connection c) throws Exception {
        for (int turn = 0; turn < 3; turn++) {
            try (PreparedStatement s = c.prepareStatement("INSERT INTO items (session, n, value) VALUES (?, ?, 'b')")) {
                for (int n = 0; n < 300; n++) {
                    s.setInt(1, session);
                    s.setInt(2, n);
                    s.addBatch();
                }
                check(s.executeBatch().length, 300);
            }
            check(one(c, "SELECT count(*) FROM items WHERE session = ? AND value = 'b'", session), "300");
            c.setAutoCommit(false);
            try (PreparedStatement s = c.prepareStatement("INSERT INTO items (session, n, value) VALUES (?, 1 / ?, 'lost')")) {
                for (int n = 9; n >= 0; n--) {
                    s.setInt(1, session);
                    s.setInt(2, n);
                    s.addBatch();
                }
                raises("22012", () -> s.executeBatch());
            }
            c.rollback();
            c.setAutoCommit(true);
            check(one(c, "SELECT count(*) FROM items WHERE session = ? AND value = 'lost'", session), "0");
            rows(c, "DELETE FROM items WHERE session = ?", session);
        }
    }
    static void error(int session, Connection c) throws Exception {
        for (int turn = 0; turn < 5; turn++) {
            c.setAutoCommit(false);
            rows(c, "INSERT INTO items (session, n, value) VALUES (?, 0, 'lost')", session);
            Savepoint before = c.setSavepoint();
            raises("42P01", () -> one(c, "SELECT * FROM nonsense"));
            raises("25P02", () -> one(c, "SELECT 1"));
            c.rollback(before);
            check(one(c, "SELECT count(*) FROM items WHERE session = ?", session), "1");
            c.rollback();
            c.setAutoCommit(true);
            check(one(c, "SELECT count(*) FROM items WHERE session = ?", session), "0");
        }
    }
    static void cancel(int session, Connection c) throws Exception {
        for (int turn = 0; turn < 2; turn++) {
            try (Statement s = c.createStatement()) {
                Timer timer = new Timer(true);
                timer.schedule(new TimerTask() { public void run() { try { s.cancel(); } catch (SQLException e) { } } }, 300, 300);
                raises("57014", () -> s.execute("SELECT pg_sleep(50)"));
                timer.cancel();
            }
            check(one(c, "SELECT ?::int", session), "" + session);
        }
        // The driver's own timer cancels it.
        try (Statement s = c.createStatement()) {
            s.setQueryTimeout(1);
            raises("57014", () -> s.execute("SELECT pg_sleep(50)"));
        }
    }
    static void copy(int session, Connection c) throws Exception {
        StringBuilder text = new StringBuilder();
        for (int n = 0; n < 500; n++) text.append(session + "\t" + n + "\ts" + session + "-" + n + "\n");
        var manager = c.unwrap(PGConnection.class).getCopyAPI();
        check(manager.copyIn("COPY items (session, n, value) FROM STDIN", new StringReader(text.toString())), 500L);
        StringWriter out = new StringWriter();
        manager.copyOut("COPY (SELECT session, n, value FROM items WHERE session = " + session + " ORDER BY n) TO STDOUT", out);
        check(out.toString(), text.toString());
        raises("22P02", () -> manager.copyIn("COPY items (session, n, value) FROM STDIN", new StringReader("not a number\n")));
        check(one(c, "SELECT count(*) FROM items WHERE session = ?", session), "500");
    }
    static void cursor(int session, Connection c) throws Exception {
        for (int turn = 0; turn < 3; turn++) {
            c.setAutoCommit(false);
            try (PreparedStatement s = c.prepareStatement("SELECT ?::int * 1000 + n FROM generate_series(1, 350) AS n")) {
                s.setFetchSize(100);
                s.setInt(1, session);
                try (ResultSet r = s.executeQuery()) {
                    for (int n = 1; n <= 350; n++) { r.next(); check(r.getInt(1), session * 1000 + n); }
                    check(r.next(), false);
                }
            }
            c.commit();
            c.setAutoCommit(true);
        }
    }
    static void settings(int session, Connection c) throws Exception {
        String zone = ZONES[session % ZONES.length];
        c.setSchema("s" + session);
        run(c, "SET TIME ZONE '" + zone + "'");
        c.setClientInfo("ApplicationName", "app" + session);
        one(c, "SELECT set_config('app.me', ?, false)", "s" + session);
        for (int turn = 0; turn < 10; turn++) {
            var row = rows(c, "SELECT session, current_setting('TimeZone'), current_setting('application_name'), current_setting('app.me') FROM whoami");
            check(row, List.of(List.of("" + session, zone, "app" + session, "s" + session)));
            c.setAutoCommit(false);
            run(c, "SET TIME ZONE 'Asia/Kolkata'");
            c.rollback();
            c.setAutoCommit(true);
        }
        c.setReadOnly(true);
        c.setAutoCommit(false);
        raises("25006", () -> run(c, "CREATE TABLE no (i int)"));
        c.rollback();
        c.setAutoCommit(true);
        c.setReadOnly(false);
    }
    static void reset(int session, Connection c) throws Exception {
        String zone = one(c, "SHOW TIME ZONE");
        for (int turn = 0; turn < 3; turn++) {
            run(c, "SET statement_timeout = '77s'");
            check(one(c, "SHOW statement_timeout"), "77s");
            run(c, "RESET ALL");
            check(one(c, "SHOW statement_timeout"), "0");
            check(one(c, "SHOW TIME ZONE"), zone);
        }
    }
    static void notify(int session, Connection c) throws Exception {
        run(c, "LISTEN c" + session);
        for (int n = 0; n < 3; n++) {
            one(c, "SELECT pg_notify(?, ?)", "c" + session, "" + n);
            var got = c.unwrap(PGConnection.class).getNotifications(10000);
            check(got.length, 1);
            check(got[0].getParameter(), "" + n);
        }
        run(c, "UNLISTEN *");
    }
    static void advisory(int session, Connection c) throws Exception {
        one(c, "SELECT pg_advisory_lock(?::int, ?::int)", (int) RUN, session);
        check(one(c, "SELECT pg_advisory_unlock(?::int, ?::int)", (int) RUN, session), "t");
        one(c, "SELECT pg_advisory_lock(?::bigint)", RUN);
        int value = Integer.parseInt(one(c, "SELECT value FROM counter"));
        check(rows(c, "UPDATE counter SET value = ? WHERE value = ? RETURNING 1", value + 1, value).size(), 1);
        check(one(c, "SELECT pg_advisory_unlock(?::bigint)", RUN), "t");
    }
    static void temp(int session, Connection c) throws Exception {
        run(c, "CREATE TEMPORARY TABLE mine (n int, value text)");
        for (int n = 0; n < 5; n++) rows(c, "INSERT INTO mine VALUES (?, ?)", n, "s" + session);
        check(rows(c, "SELECT count(*), min(value), max(value) FROM mine"), List.of(List.of("5", "s" + session, "s" + session)));
        run(c, "DROP TABLE mine");
    }
    static void hold(int session, Connection c) throws Exception {
        run(c, "DECLARE kept CURSOR WITH HOLD FOR SELECT " + session + " * 1000 + n FROM generate_series(1, 100) AS n");
        int n = 0;
        for (var part = rows(c, "FETCH 30 FROM kept"); !part.isEmpty(); part = rows(c, "FETCH 30 FROM kept"))
            for (var row : part) check(row.get(0), "" + (session * 1000 + ++n));
        check(n, 100);
        run(c, "CLOSE kept");
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments.length == 1 && arguments[0].equals("--version")) {
            System.out.println("pgjdbc " + org.postgresql.util.DriverInfo.DRIVER_VERSION);
            return;
        }
        Map<String, Body> scenarios = new HashMap<>();
        scenarios.put("transactions", Jdbc::transactions);
        scenarios.put("prepared", Jdbc::prepared);
        scenarios.put("pipeline", Jdbc::pipeline);
        scenarios.put("error", Jdbc::error);
        scenarios.put("cancel", Jdbc::cancel);
        scenarios.put("copy", Jdbc::copy);
        scenarios.put("cursor", Jdbc::cursor);
        scenarios.put("settings", Jdbc::settings);
        scenarios.put("reset", Jdbc::reset);
        scenarios.put("notify", Jdbc::notify);
        scenarios.put("advisory", Jdbc::advisory);
        scenarios.put("temp", Jdbc::temp);
        scenarios.put("hold", Jdbc::hold);
        for (String name : arguments) if (scenarios.containsKey(name)) together(name, scenarios.get(name));
        System.exit(0);
    }
    static void together(String name, Body body) throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(SESSIONS);
        CountDownLatch all = new CountDownLatch(SESSIONS);
        List<Future<?>> running = new ArrayList<>();
        for (int n = 0; n < SESSIONS; n++) {
            int session = n;
            running.add(threads.submit(() -> {
                try (Connection c = connect()) {
                    all.countDown();
                    all.await();
                    body.run(session, c);
                } finally {
                    all.countDown();
                }
                return null;
            }));
        }
        List<Throwable> bad = new ArrayList<>();
        for (Future<?> f : running) {
            try { f.get(); } catch (ExecutionException e) { bad.add(e.getCause()); }
        }
        threads.shutdown();
        if (bad.isEmpty()) {
            System.out.println("ok " + name);
        } else {
            System.out.println("FAILED " + name + " " + bad.size() + " of " + SESSIONS + " sessions: " + ("" + bad.get(0)).replaceAll("\\s+", " "));
            bad.get(0).printStackTrace();
        }
    }
}

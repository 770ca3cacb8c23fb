<?php
// PDO: prepares by protocol and gives up by SQL's DEALLOCATE. A process is a session.
const ZONES = ['UTC', 'Asia/Tokyo', 'America/New_York', 'Europe/Paris', 'Australia/Sydney'];
$sessions = (int) (getenv('SESSIONS') ?: 50);

function check($got, $wanted): void
{
    if ($got !== $wanted) {
        throw new Exception('is ' . json_encode($got) . ', not ' . json_encode($wanted));
    }
}
function raises(string $state, callable $body): void
{
    try {
        $body();
    } catch (PDOException $e) {
        if ((string) $e->getCode() !== $state) {
            throw $e;
        }
        return;
    }
    throw new Exception("no error $state");
}
function connect(bool $emulate = false): PDO
{
    $dsn = sprintf('pgsql:host=%s;port=%s;dbname=%s', getenv('PGHOST'), getenv('PGPORT'), getenv('PGDATABASE'));
    $db = new PDO($dsn, getenv('PGUSER'), getenv('PGPASSWORD'), [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION]);
    $db->setAttribute(PDO::ATTR_EMULATE_PREPARES, $emulate);
    return $db;
}
function rows(PDO $db, string $sql, array $parameters = []): array
{
    $s = $db->prepare($sql);
    $s->execute($parameters);
    return $s->fetchAll(PDO::FETCH_NUM);
}
function one(PDO $db, string $sql, array $parameters = [])
{
    return rows($db, $sql, $parameters)[0][0];
}

$scenarios = [
    'transactions' => function (int $session, PDO $db): void {
        $kept = 0;
        for ($n = 0; $n < 20; $n++) {
            $db->beginTransaction();
            rows($db, 'INSERT INTO items (session, n, value) VALUES (?, ?, ?)', [$session, $n, 'x']);
            check((int) one($db, 'SELECT count(*) FROM items WHERE session = ?', [$session]), $kept + 1);
            if ($n % 4 === 3) {
                $db->rollBack();
            } else {
                $db->commit();
                $kept++;
            }
        }
        check(count(rows($db, 'DELETE FROM items WHERE session = ? RETURNING 1', [$session])), $kept);
    },
    'prepared' => function (int $session, PDO $db): void {
        $shared = $db->prepare('SELECT ?::int + 1000');
        $own = $db->prepare('SELECT ?::int * ' . ($session + 7));
        for ($turn = 0; $turn < 30; $turn++) {
            foreach ([[$shared, $turn + 1000], [$own, $turn * ($session + 7)]] as [$statement, $wanted]) {
                $statement->execute([$turn]);
                check((int) $statement->fetchColumn(), $wanted);
            }
            // Prepared and deallocated each time.
            check((int) one($db, 'SELECT ?::int', [$turn]), $turn);
        }
        raises('42601', fn () => one($db, 'SELEC 1'));
        raises('22012', fn () => one($db, 'SELECT 1 / ?::int', [0]));
        $emulated = connect(true);
        check((int) one($emulated, 'SELECT ?::int', [$session]), $session);
    },
    'error' => function (int $session, PDO $db): void {
        for ($turn = 0; $turn < 5; $turn++) {
            $db->beginTransaction();
            rows($db, 'INSERT INTO items (session, n, value) VALUES (?, 0, ?)', [$session, 'lost']);
            raises('42P01', fn () => rows($db, 'SELECT * FROM nonsense'));
            raises('25P02', fn () => rows($db, 'SELECT 1'));
            $db->rollBack();
            check((int) one($db, 'SELECT count(*) FROM items WHERE session = ?', [$session]), 0);
        }
    },
    'copy' => function (int $session, PDO $db): void {
        $lines = array_map(fn (int $n): string => "$session\t$n\ts$session\n", range(0, 499));
        $db->pgsqlCopyFromArray('items', $lines, "\t", '\\\\N', 'session,n,value');
        $got = $db->pgsqlCopyToArray("(SELECT session, n, value FROM items WHERE session = $session ORDER BY n)");
        check($got, $lines);
    },
    'cursor' => function (int $session, PDO $db): void {
        for ($turn = 0; $turn < 3; $turn++) {
            $db->beginTransaction();
            $s = $db->prepare('SELECT ?::int * 1000 + n FROM generate_series(1, 350) AS n', [PDO::ATTR_CURSOR => PDO::CURSOR_SCROLL]);
            $s->execute([$session]);
            for ($n = 1; $n <= 350; $n++) {
                check((int) $s->fetch(PDO::FETCH_NUM)[0], $session * 1000 + $n);
            }
            unset($s);
            $db->commit();
        }
    },
    'settings' => function (int $session, PDO $db): void {
        $zone = ZONES[$session % count(ZONES)];
        $db->exec("SET search_path TO s$session, public; SET TIME ZONE '$zone'");
        rows($db, "SELECT set_config('app.me', ?, false)", ["s$session"]);
        for ($turn = 0; $turn < 10; $turn++) {
            $row = rows($db, "SELECT session::text, current_setting('TimeZone'), current_setting('app.me') FROM whoami")[0];
            check($row, [(string) $session, $zone, "s$session"]);
        }
    },
    'notify' => function (int $session, PDO $db): void {
        $db->exec("LISTEN c$session");
        for ($n = 0; $n < 3; $n++) {
            rows($db, 'SELECT pg_notify(?, ?)', ["c$session", (string) $n]);
            $got = $db->pgsqlGetNotify(PDO::FETCH_ASSOC, 20000);
            check([$got['message'], $got['payload']], ["c$session", (string) $n]);
        }
        $db->exec('UNLISTEN *');
    },
    'advisory' => function (int $session, PDO $db): void {
        $key = posix_getppid();
        one($db, 'SELECT pg_advisory_lock(?::bigint)', [$key]);
        $value = (int) one($db, 'SELECT value FROM counter');
        check(count(rows($db, 'UPDATE counter SET value = ?::int WHERE value = ? RETURNING 1', [$value + 1, $value])), 1);
        check(one($db, 'SELECT pg_advisory_unlock(?::bigint)', [$key]), true);
    },
    'temp' => function (int $session, PDO $db): void {
        $db->exec('CREATE TEMPORARY TABLE mine (n int)');
        for ($n = 0; $n < 5; $n++) {
            rows($db, 'INSERT INTO mine VALUES (?)', [$session]);
        }
        check((int) one($db, 'SELECT sum(n) FROM mine'), 5 * $session);
        $db->exec('DROP TABLE mine');
    },
];

if (($argv[1] ?? '') === '--version') {
    echo 'PDO_PGSQL of PHP ' . PHP_VERSION . "\n";
    exit;
}
if (($argv[1] ?? '') === '--session') {
    try {
        $scenarios[$argv[2]]((int) $argv[3], connect());
    } catch (Throwable $e) {
        fwrite(STDERR, $e . "\n");
        echo get_class($e) . ' ' . preg_replace('/\s+/', ' ', $e->getMessage());
        exit(1);
    }
    exit;
}
foreach (array_slice($argv, 1) as $name) {
    if (!isset($scenarios[$name])) {
        continue;
    }
    $running = [];
    for ($session = 0; $session < $sessions; $session++) {
        $pipes = [];
        $process = proc_open([PHP_BINARY, __FILE__, '--session', $name, (string) $session], [1 => ['pipe', 'w']], $pipes);
        $running[] = [$process, $pipes[1]];
    }
    $bad = [];
    foreach ($running as [$process, $out]) {
        $said = stream_get_contents($out);
        if (proc_close($process) !== 0) {
            $bad[] = $said;
        }
    }
    echo $bad === [] ? "ok $name\n" : sprintf("FAILED %s %d of %d sessions: %s\n", $name, count($bad), $sessions, $bad[0]);
}

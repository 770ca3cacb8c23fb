# DBD::Pg: statements named dbdpg_p... by protocol, given up by SQL's DEALLOCATE. A process is a session.
use strict;
use warnings;
use DBI;
use DBD::Pg qw(:async);

my $sessions = $ENV{SESSIONS} // 50;
my $run = $$;

sub check {
    my ($got, $wanted) = @_;
    die "is $got, not $wanted\n" unless $got eq $wanted;
}

sub one {
    my ($db, $sql, @parameters) = @_;
    return ($db->selectrow_array($sql, undef, @parameters))[0];
}

sub raises {
    my ($db, $state, $body) = @_;
    eval { $body->(); 1 } and die "no error $state\n";
    check($db->state, $state);
}

my %scenarios = (
    transactions => sub {
        my ($session, $db) = @_;
        my $kept = 0;
        for my $n (0 .. 19) {
            $db->begin_work;
            $db->do("INSERT INTO items (session, n, value) VALUES (?, ?, 'x')", undef, $session, $n);
            check(one($db, 'SELECT count(*) FROM items WHERE session = ?', $session), $kept + 1);
            if ($n % 4 == 3) { $db->rollback } else { $db->commit; $kept++ }
        }
        check($db->do('DELETE FROM items WHERE session = ?', undef, $session), $kept);
    },
    prepared => sub {
        my ($session, $db) = @_;
        my $shared = $db->prepare('SELECT ?::int + 1000');
        my $own = $db->prepare('SELECT ?::int * ' . ($session + 7));
        for my $turn (0 .. 29) {
            $shared->execute($turn);
            check($shared->fetchrow_array, $turn + 1000);
            $own->execute($turn);
            check($own->fetchrow_array, $turn * ($session + 7));
            check(one($db, 'SELECT ?::int', $turn), $turn);
        }
    },
    error => sub {
        my ($session, $db) = @_;
        for (1 .. 5) {
            $db->begin_work;
            $db->do("INSERT INTO items (session, n, value) VALUES (?, 0, 'lost')", undef, $session);
            raises($db, '42P01', sub { one($db, 'SELECT * FROM nonsense') });
            $db->rollback;
            check(one($db, 'SELECT count(*) FROM items WHERE session = ?', $session), 0);
        }
    },
    copy => sub {
        my ($session, $db) = @_;
        $db->do('COPY items (session, n, value) FROM STDIN');
        $db->pg_putcopydata("$session\t$_\ts$session\n") for 0 .. 499;
        $db->pg_putcopyend;
        $db->do("COPY (SELECT session, n, value FROM items WHERE session = $session ORDER BY n) TO STDOUT");
        my ($line, $n) = ('', 0);
        while ($db->pg_getcopydata($line) >= 0) { check($line, "$session\t$n\ts$session\n"); $n++ }
        check($n, 500);
    },
    cursor => sub {
        my ($session, $db) = @_;
        for (1 .. 3) {
            $db->begin_work;
            $db->do("DECLARE numbers CURSOR FOR SELECT $session * 1000 + n FROM generate_series(1, 350) AS n");
            my $seen = 0;
            while (my @numbers = @{ $db->selectcol_arrayref('FETCH 100 FROM numbers') }) {
                check($_, $session * 1000 + ++$seen) for @numbers;
            }
            check($seen, 350);
            $db->commit;
        }
    },
    settings => sub {
        my ($session, $db) = @_;
        $db->do("SET search_path TO s$session, public");
        $db->do("SET TIME ZONE 'Asia/Tokyo'");
        for (1 .. 10) {
            check(one($db, "SELECT session || current_setting('TimeZone') FROM whoami"), "${session}Asia/Tokyo");
        }
    },
    notify => sub {
        my ($session, $db) = @_;
        $db->do("LISTEN c$session");
        for my $n (0 .. 2) {
            one($db, 'SELECT pg_notify(?, ?)', "c$session", $n);
            my $got;
            for (1 .. 1000) { last if $got = $db->pg_notifies; select undef, undef, undef, 0.02 }
            check($got->[2], $n);
        }
        $db->do('UNLISTEN *');
    },
    advisory => sub {
        my ($session, $db) = @_;
        one($db, 'SELECT pg_advisory_lock(?)', $run);
        my $value = one($db, 'SELECT value FROM counter');
        check($db->do('UPDATE counter SET value = ? WHERE value = ?', undef, $value + 1, $value), 1);
        check(one($db, 'SELECT pg_advisory_unlock(?)', $run), 1);
    },
    temp => sub {
        my ($session, $db) = @_;
        $db->do('CREATE TEMPORARY TABLE mine (n int)');
        $db->do('INSERT INTO mine VALUES (?)', undef, $session) for 1 .. 5;
        check(one($db, 'SELECT sum(n) FROM mine'), 5 * $session);
        $db->do('DROP TABLE mine');
    },
);

if (@ARGV && $ARGV[0] eq '--version') {
    print "DBD::Pg $DBD::Pg::VERSION\n";
    exit;
}
for my $name (grep { $scenarios{$_} } @ARGV) {
    my @pipes;
    for my $session (0 .. $sessions - 1) {
        my $child = open(my $pipe, '-|') // die;
        if (!$child) {
            my $ok = eval {
                my $db = DBI->connect("dbi:Pg:dbname=$ENV{PGDATABASE}", $ENV{PGUSER}, $ENV{PGPASSWORD},
                    { RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1 });
                $scenarios{$name}->($session, $db);
                $db->disconnect;
                1;
            };
            print $@ unless $ok;
            exit;
        }
        push @pipes, $pipe;
    }
    my @bad = grep { $_ ne '' } map { local $/; scalar(readline $_) // '' } @pipes;
    s/\s+/ /g for @bad;
    print @bad ? "FAILED $name " . @bad . " of $sessions sessions: $bad[0]\n" : "ok $name\n";
}

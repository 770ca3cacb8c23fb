# Ruby's pg: libpq, statements named by the program, DEALLOCATE by SQL.
require 'pg'
require_relative 'common'

class Undo < StandardError; end

def session
  c = PG.connect
  yield c
ensure
  c&.close
end

def one(c, sql, *parameters)
  c.exec_params(sql, parameters).getvalue(0, 0)
end

main "ruby-pg #{PG::VERSION}", {
  transactions: lambda { |n|
    session do |c|
      kept = 0
      20.times do |turn|
        c.transaction do
          c.exec_params("INSERT INTO items (session, n, value) VALUES ($1, $2, 'x')", [n, turn])
          check one(c, 'SELECT count(*) FROM items WHERE session = $1', n), (kept + 1).to_s
          raise Undo if turn % 4 == 3
          kept += 1
        end
      rescue Undo
        # Rolled back.
      end
      check c.exec_params('DELETE FROM items WHERE session = $1', [n]).cmd_tuples, kept
    end
  },
  prepared: lambda { |n|
    session do |c|
      c.prepare('shared', 'SELECT $1::int + 1')
      c.prepare("own", "SELECT $1::int * #{n + 7}")
      30.times do |turn|
        check c.exec_prepared('shared', [turn]).getvalue(0, 0), (turn + 1).to_s
        check c.exec_prepared('own', [turn]).getvalue(0, 0), (turn * (n + 7)).to_s
      end
      # By SQL what was prepared by protocol, and the name again for another text.
      c.exec('DEALLOCATE own')
      raises(PG::InvalidSqlStatementName) { c.exec_prepared('own', [1]) }
      c.prepare('own', 'SELECT $1::text')
      check c.exec_prepared('own', ['x']).getvalue(0, 0), 'x'
      raises(PG::DuplicatePstatement) { c.prepare('own', 'SELECT 1') }
      c.exec('DEALLOCATE ALL')
      c.prepare('own', 'SELECT 2')
      check c.exec_prepared('own').getvalue(0, 0), '2'
    end
  },
  pipeline: lambda { |n|
    session do |c|
      c.enter_pipeline_mode
      20.times do |turn|
        c.send_query_params('SELECT 1 / $1::int, $2::int', [turn % 5, n])
        c.pipeline_sync
      end
      20.times do |turn|
        result = c.get_result
        if turn % 5 == 0
          check result.error_field(PG::PG_DIAG_SQLSTATE), '22012'
        else
          check result.getvalue(0, 1), n.to_s
        end
        check c.get_result, nil
        check c.get_result.result_status, PG::PGRES_PIPELINE_SYNC
      end
      c.exit_pipeline_mode
    end
  },
  error: lambda { |n|
    session do |c|
      5.times do
        raises(PG::DivisionByZero) do
          c.transaction do
            c.exec_params("INSERT INTO items (session, n, value) VALUES ($1, 0, 'lost')", [n])
            c.exec_params('SELECT 1 / $1::int', [0])
          end
        end
        check one(c, 'SELECT count(*) FROM items WHERE session = $1', n), '0'
      end
    end
  },
  cancel: lambda { |n|
    session do |c|
      2.times do
        done = false
        canceller = Thread.new do
          sleep 0.3
          until done
            c.cancel
            sleep 0.3
          end
        end
        raises(PG::QueryCanceled) { c.exec('SELECT pg_sleep(50)') }
        done = true
        canceller.join
      end
      check one(c, 'SELECT $1::int', n), n.to_s
    end
  },
  copy: lambda { |n|
    session do |c|
      lines = Array.new(500) { |line| "#{n}\t#{line}\ts#{n}\n" }
      c.copy_data('COPY items (session, n, value) FROM STDIN') { lines.each { |line| c.put_copy_data(line) } }
      got = []
      c.copy_data("COPY (SELECT session, n, value FROM items WHERE session = #{n} ORDER BY n) TO STDOUT") do
        while (line = c.get_copy_data) do got << line end
      end
      check got, lines
      raises(PG::InvalidTextRepresentation) do
        c.copy_data('COPY items (session, n, value) FROM STDIN') { c.put_copy_data("not a number\n") }
      end
      check one(c, 'SELECT count(*) FROM items WHERE session = $1', n), '500'
    end
  },
  cursor: lambda { |n|
    session do |c|
      3.times do
        c.send_query("SELECT #{n} * 1000 + n FROM generate_series(1, 350) AS n")
        c.set_single_row_mode
        got = []
        while (result = c.get_result) do result.each_row { |row| got << row[0].to_i } end
        check got, (1..350).map { |i| n * 1000 + i }
      end
    end
  },
  settings: lambda { |n|
    session do |c|
      c.exec("SET search_path TO s#{n}, public")
      c.exec("SET TIME ZONE 'Asia/Tokyo'")
      10.times do
        check c.exec("SELECT session, current_setting('TimeZone') FROM whoami").values, [[n.to_s, 'Asia/Tokyo']]
      end
      check c.parameter_status('TimeZone'), 'Asia/Tokyo'
    end
  },
  reset: lambda { |n|
    session do |c|
      zone = one(c, 'SHOW TIME ZONE')
      3.times do
        c.exec("SET TIME ZONE 'Asia/Kolkata'")
        c.exec("SET statement_timeout = '77s'")
        c.reset if n == 0
        c.exec('DISCARD ALL')
        check [one(c, 'SHOW TIME ZONE'), one(c, 'SHOW statement_timeout')], [zone, '0']
      end
    end
  },
  notify: lambda { |n|
    session do |c|
      c.exec("LISTEN c#{n}")
      3.times do |turn|
        c.exec_params('SELECT pg_notify($1, $2)', ["c#{n}", turn.to_s])
        c.wait_for_notify(20) { |channel, _, payload| check [channel, payload], ["c#{n}", turn.to_s] } or raise 'not notified'
      end
      c.exec('UNLISTEN *')
    end
  },
  advisory: lambda { |_|
    session do |c|
      one(c, 'SELECT pg_advisory_lock($1)', RUN)
      value = one(c, 'SELECT value FROM counter').to_i
      check c.exec_params('UPDATE counter SET value = $1 WHERE value = $2', [value + 1, value]).cmd_tuples, 1
      check one(c, 'SELECT pg_advisory_unlock($1)', RUN), 't'
    end
  },
  temp: lambda { |n|
    session do |c|
      c.exec('CREATE TEMPORARY TABLE mine (n int)')
      5.times { c.exec_params('INSERT INTO mine VALUES ($1)', [n]) }
      check one(c, 'SELECT sum(n) FROM mine'), (5 * n).to_s
      c.exec('DROP TABLE mine')
    end
  },
}
